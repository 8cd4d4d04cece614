"""The engine in this process, with weights from our own publisher, for the steps that measure it."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.gpu_check.setup import Setup
    from grpo_gsm8k.config import Config

NEVER = 0  # <pad>: random weights hardly ever sample it, so that completions have their full length


def open_engine(config: Config, folder: Path, lora_rank: int = 0) -> Any:
    """Start the engine of `config.actor` on the model in `folder`."""
    from grpo_gsm8k.actor.vllm_engine import VllmEngine
    from grpo_gsm8k.runtime.actor_process import engine_spec

    versions = config.policy_gradient.max_staleness + 2
    return VllmEngine(engine_spec(config, folder, lora_rank, versions if lora_rank else 1))


def engine_config(setup: Setup, *overrides: str) -> Config:
    """Compose a configuration whose engine leaves most of a shared GPU to the learner."""
    place = ("actor.gpu_memory=0.25", "actor.enforce_eager=true", "actor.max_num_seqs=128") if setup.cuda else ()
    return setup.config(*place, *overrides)


def open_publisher(folder: Path, policy: Any, config: Config) -> Any:
    """Create a publisher that writes to `folder`, with a random canary."""
    from grpo_gsm8k.learner.publisher import Publisher

    item: Any = SimpleNamespace(prompt_ids=np.random.default_rng(0).integers(5, 90, size=64).astype(np.int32))
    folder.mkdir(exist_ok=True)
    return Publisher(folder, policy, config, [item])


def requests(count: int, tokens: int, n: int = 1, vocab: int = 90) -> list[Any]:
    """Return requests of `n` completions of `tokens` tokens each for random prompts of 40 tokens."""
    from grpo_gsm8k.transport.protocol import GenerateGroup, SamplingSpec

    rng = np.random.default_rng(1)
    made = []
    for i in range(count):
        prompt = rng.integers(5, vocab, size=40).astype(np.int32)
        made.append(GenerateGroup(f"request/{i}", prompt, n, SamplingSpec(1.0, 1.0, tokens, i * n, (NEVER,)), 0, False))
    return made


def until_live(engine: Any, limit_s: float = 60.0) -> tuple[Any, list[Any]]:
    """Step until the loaded weights are live; returns the message, and other results on the way."""
    from grpo_gsm8k.transport.protocol import WeightsLive

    ends = time.monotonic() + limit_s
    others: list[Any] = []
    while time.monotonic() < ends:
        for result in engine.step():
            if isinstance(result, WeightsLive):
                return result, others
            others.append(result)
    raise TimeoutError(f"the weights were not live after {limit_s:.0f} s")


def finish(engine: Any, count: int) -> list[Any]:
    """Step until `count` requests are finished, and return their results."""
    done: list[Any] = []
    while len(done) < count:
        done += engine.step()
    return done
