"""What the simulation of a run needs to know: how fast each part of the pipeline is, and how long completions are."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

BITS = 8


@dataclass(frozen=True, slots=True)
class EngineRates:
    """Seconds of one engine, and how many sequences it runs at once.

    A step with n sequences takes `step_s + n * sequence_s`, and beside that the longer one of reading weights and
    caches, `weights_s + n * cache_s`, and of arithmetic, `n * compute_s`. A prompt token takes `prompt_token_s`, once
    for the completions of a group.
    A swap of weights stops the engine for `load_s`, after files were verified for `verify_s` beside it; then the
    contexts of the running sequences are computed again.
    """

    step_s: float
    sequence_s: float
    prompt_token_s: float
    max_sequences: int
    load_s: float
    verify_s: float
    weights_s: float = 0.0
    cache_s: float = 0.0
    compute_s: float = 0.0

    def step(self, sequences: int) -> float:
        """Return the seconds of a step that samples one token for each of so many sequences."""
        products_s = max(self.weights_s + sequences * self.cache_s, sequences * self.compute_s)
        return self.step_s + sequences * self.sequence_s + products_s

    def slower(self, factor: float) -> Self:
        """Return the rates of an engine whose steps and prompts take `factor` times as long."""
        return replace(
            self,
            step_s=self.step_s * factor,
            sequence_s=self.sequence_s * factor,
            prompt_token_s=self.prompt_token_s * factor,
            weights_s=self.weights_s * factor,
            cache_s=self.cache_s * factor,
            compute_s=self.compute_s * factor,
        )


@dataclass(frozen=True, slots=True)
class LearnerRates:
    """Seconds of the learner's part of an update.

    `token_s` is for one token of prompt or completion on one rank, `update_s` for what each rank does in full. Ranks
    share the tokens as `deal` does, and exchange gradients in `exchange_s * (ranks - 1) / ranks` (a ring).
    """

    token_s: float
    update_s: float
    publish_s: float
    records_s: float
    checkpoint_s: float = 0.0
    ranks: int = 1
    exchange_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Network:
    """Machines beside the learner's that weights are mirrored to; `gbit_s` None: all engines are on the learner's.

    `message_s` is what a message takes from the learner to an engine or back.
    """

    message_s: float
    weights_bytes: float
    gbit_s: float | None = None
    engines_per_machine: int = 8

    @property
    def copy_s(self) -> float:
        """Seconds for one copy of the weights through the learner's end of the network."""
        return 0.0 if self.gbit_s is None else self.weights_bytes * BITS / (self.gbit_s * 1e9)


@dataclass(frozen=True, slots=True)
class Lengths:
    """Lengths in tokens: completions by group, answers to validation items, and a prompt's mean."""

    groups: tuple[tuple[int, ...], ...]
    validation: tuple[int, ...]
    prompt: int


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Everything about a run's speed, and in `source` one line about where the figures are from."""

    engine: EngineRates
    learner: LearnerRates
    network: Network
    lengths: Lengths
    source: str
