"""The main function of an actor process: import and build the engine, then serve requests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grpo_gsm8k.actor.loop import Actor
from grpo_gsm8k.transport.protocol import Reset, StartEngine, Stop

if TYPE_CHECKING:
    from collections.abc import Callable

    from grpo_gsm8k.actor.engine import Engine, EngineSpec
    from grpo_gsm8k.transport.channel import Channel

FEW = 8  # with fewer than an eighth of its places taken, a step on a CPU takes hardly less time

WAIT_SECONDS = 3600.0  # of one wait for the first message; the process ends when the orchestrator does


def import_engine(spec: EngineSpec) -> Callable[[EngineSpec], Engine]:
    """Return the class of the engine that `spec` names. Takes seconds, and uses no device."""
    if spec.kind == "scripted":
        from grpo_gsm8k.actor.scripted_engine import ScriptedEngine

        return ScriptedEngine
    from grpo_gsm8k.actor.vllm_engine import VllmEngine

    return VllmEngine


def told_to_start(channel: Channel) -> bool:
    """Wait for the first message: True for `StartEngine`, False for `Stop`, when no engine is needed any more.

    A learner that is replaced meanwhile sends `Reset`; without an engine there is nothing to drop.
    """
    message = None
    while message is None or isinstance(message, Reset):
        message = channel.receive(WAIT_SECONDS)
    if not isinstance(message, StartEngine | Stop):
        raise TypeError(f"{type(message).__name__} came before StartEngine")
    return isinstance(message, StartEngine)


def run_actor(engine: Engine, channel: Channel, spec: EngineSpec) -> None:
    """Serve requests until a `Stop` command."""
    few = few_beside(spec.device, spec.max_num_seqs)
    Actor(engine, channel, spec.own_version, few, spec.sleeps).run()


def few_beside(device: str, max_num_seqs: int) -> int | None:
    """Return beside how many sequences less urgent requests may start; None: beside any number.

    On a CPU the time of a step grows with the number of sequences, so that less urgent ones delay the others.
    """
    return max_num_seqs // FEW if device == "cpu" else None
