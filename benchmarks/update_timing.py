"""Time and memory of one policy update on random rollouts, for `make bench-gpu` and `make gpu-check`."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from grpo_gsm8k.config import Config
    from grpo_gsm8k.learner.batching import Sample
    from grpo_gsm8k.preflight.memory import Load

    Groups = list[list[Sample]]

LR = 1e-6


@dataclass(frozen=True, slots=True)
class BatchSize:
    """Rollouts of one update; lengths are means, drawn evenly from half to one and a half times as many tokens."""

    prompts: int
    group: int
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class Split:
    """Seconds of one update by part; the device is waited for after each, so the sum exceeds an update's own time."""

    forward_s: float
    backward_s: float
    optimizer_s: float


@dataclass(frozen=True, slots=True)
class Measured:
    """Median seconds of an update, peak memory in bytes (on a CPU: growth of the process), seconds by part."""

    update_s: float
    peak_bytes: float
    split: Split


def random_rollouts(size: BatchSize, vocab: int, seed: int = 0) -> Groups:
    """Return groups of random tokens whose advantages have mean zero and are never zero."""
    from grpo_gsm8k.learner.batching import rollout_sample

    rng = np.random.default_rng(seed)

    def ids(mean: int) -> np.ndarray:
        return rng.integers(3, vocab, size=int(rng.integers(max(2, mean // 2), mean * 3 // 2 + 1))).astype(np.int32)

    groups = []
    for _ in range(size.prompts):
        prompt = ids(size.prompt_tokens)
        group = []
        for i in range(size.group):
            completion = ids(size.completion_tokens)
            behaviour = np.full(len(completion), -np.log(vocab))
            on_policy = np.ones(len(completion), dtype=np.bool_)
            group.append(rollout_sample(prompt, completion, behaviour, on_policy, advantage=(-1.0) ** i))
        groups.append(group)
    return groups


class Learner:
    """The learner's models and optimizers on one device, without the processes around them."""

    def __init__(self, config: Config, folder: Path) -> None:
        """Load the model of `folder`."""
        from grpo_gsm8k.learner.setup import open_models, open_optimizers, set_up_torch

        set_up_torch(config)
        self.config = config
        self.models = open_models(config, folder, folder, None)
        self.optimizers = open_optimizers(self.models, config.learner)
        self._steps = 0

    def update(self, groups: Groups, budget: Any = None) -> float:
        """Run one update as a training run does, and return its seconds."""
        from grpo_gsm8k.learner.schedules import Rates
        from grpo_gsm8k.learner.update import update_policy

        started = time.perf_counter()
        rates = Rates(LR, 0.0, 0.0)
        update_policy(self.models, self.optimizers, groups, self.config, self._steps, rates, lambda: None, budget)
        self.wait()
        self._steps += 1
        return time.perf_counter() - started

    def split(self, groups: Groups) -> Split:
        """Run one update part by part."""
        from grpo_gsm8k.learner.objective import objective
        from grpo_gsm8k.learner.update import microbatches

        flat = [sample for group in groups for sample in group]
        forward = backward = 0.0
        for micro in microbatches(flat, self.config, self.models.policy.device):
            started = time.perf_counter()
            output = objective(self.models, micro, self.config, 0.0)
            self.wait()
            middle = time.perf_counter()
            output.loss.backward()
            self.wait()
            forward, backward = forward + middle - started, backward + time.perf_counter() - middle
        started = time.perf_counter()
        self.optimizers.policy.step(LR)
        self.wait()
        return Split(forward, backward, time.perf_counter() - started)

    def wait(self) -> None:
        """Wait until the device has finished."""
        import torch

        if self.models.policy.device.type == "cuda":
            torch.cuda.synchronize()


def measure(learner: Learner, groups: Groups, rounds: int, start: float, peak: Callable[[], float]) -> Measured:
    """Time `rounds` updates after one that is not counted; memory is the peak minus `start`, all updates included."""
    learner.update(groups)
    seconds = [learner.update(groups) for _ in range(rounds)]
    most = peak() - start
    return Measured(statistics.median(seconds), most, learner.split(groups))


def largest_load(groups: Groups, config: Config) -> Load:
    """Return the sizes of the micro-batch with the most tokens, as the memory estimate takes them.

    The estimate knows one prompt: of several, all completions are counted behind one of their mean length.
    """
    import torch

    from grpo_gsm8k.learner.batching import pack, pack_tokens
    from grpo_gsm8k.preflight.memory import Load

    flat = [sample for group in groups for sample in group]
    loads = []
    for indices in pack(flat, config.learner.token_budget):
        part = [flat[i] for i in indices]
        tokens = pack_tokens(part, torch.device("cpu"))
        prompts = {sample.prompt_ids.tobytes(): len(sample.prompt_ids) for sample in part}
        sharing = len(part) if len(part) > len(prompts) else 0
        prompt = sum(prompts.values()) // len(prompts)
        loads.append(Load(len(tokens.input_ids_T), len(tokens.targets_N), sharing, prompt))
    return max(loads, key=lambda load: load.tokens)
