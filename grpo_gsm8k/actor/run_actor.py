"""The main function of an actor process: build the engine, then serve requests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grpo_gsm8k.actor.loop import Actor

if TYPE_CHECKING:
    from grpo_gsm8k.actor.engine import Engine, EngineSpec
    from grpo_gsm8k.transport.channel import Channel


def build_engine(spec: EngineSpec) -> Engine:
    """Import and start the engine that `spec` names."""
    if spec.kind == "scripted":
        from grpo_gsm8k.actor.scripted_engine import ScriptedEngine

        return ScriptedEngine(spec)
    from grpo_gsm8k.actor.vllm_engine import VllmEngine

    return VllmEngine(spec)


def run_actor(engine: Engine, channel: Channel, own_version: int) -> None:
    """Serve requests until a `Stop` command; `own_version` is that of `EngineSpec`."""
    Actor(engine, channel, own_version).run()
