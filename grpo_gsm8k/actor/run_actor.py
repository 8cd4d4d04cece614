"""The main function of an actor process: build the engine, then serve requests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grpo_gsm8k.actor.loop import Actor

if TYPE_CHECKING:
    from grpo_gsm8k.actor.engine import Engine, EngineSpec
    from grpo_gsm8k.transport.channel import Channel

FEW = 8  # with fewer than an eighth of its places taken, a step on a CPU takes hardly less time


def build_engine(spec: EngineSpec) -> Engine:
    """Import and start the engine that `spec` names."""
    if spec.kind == "scripted":
        from grpo_gsm8k.actor.scripted_engine import ScriptedEngine

        return ScriptedEngine(spec)
    from grpo_gsm8k.actor.vllm_engine import VllmEngine

    return VllmEngine(spec)


def run_actor(engine: Engine, channel: Channel, spec: EngineSpec) -> None:
    """Serve requests until a `Stop` command."""
    # On a CPU the time of a step grows with the number of sequences, so that less urgent ones delay the others.
    few = spec.max_num_seqs // FEW if spec.device == "cpu" else None
    Actor(engine, channel, spec.own_version, few).run()
