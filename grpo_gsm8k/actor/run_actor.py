"""The main function of an actor process: build the engine, then serve requests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grpo_gsm8k.actor.loop import Actor
from grpo_gsm8k.garbage_collection import garbage_collection_paused

if TYPE_CHECKING:
    from grpo_gsm8k.actor.engine import Engine, EngineSpec
    from grpo_gsm8k.transport.channel import Channel


def run_actor(spec: EngineSpec, channel: Channel) -> None:
    """Serve requests until a `Stop` command."""
    with garbage_collection_paused():
        engine = build_engine(spec)
    Actor(engine, channel, spec.own_version).run()


def build_engine(spec: EngineSpec) -> Engine:
    """Import and start the engine that `spec` names."""
    if spec.kind == "scripted":
        from grpo_gsm8k.actor.scripted_engine import ScriptedEngine

        return ScriptedEngine(spec)
    from grpo_gsm8k.actor.vllm_engine import VllmEngine

    return VllmEngine(spec)
