"""Copies of weights and optimizer state that the learner keeps in the host's memory. Pure functions; bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from grpo_gsm8k.preflight.memory import ADAMW, ADAMW_8BIT, F32
from grpo_gsm8k.preflight.workload import workload_of

if TYPE_CHECKING:
    from grpo_gsm8k.config import Config
    from grpo_gsm8k.preflight.parameters import ModelShape


@dataclass(frozen=True, slots=True)
class HostCopies:
    """What is held beside the learner's own tensors."""

    published: float  # weights in the engine's precision, kept for the run; see learner/host_copy.py
    saved_state: float  # optimizer state, while a checkpoint is written
    sleeping: float  # weights of an engine that sleeps between updates
    offloaded: float  # with `learner.offload_optimizer`, of all ranks: optimizer state, masters, gradients
    saved_weights: float  # weights, while a checkpoint is written and training goes on, if there is room for them

    @property
    def needed(self) -> float:
        """Return what must fit beside LearnerMemory. Without room for `saved_weights`, training waits for the write."""
        return self.published + self.saved_state


def host_copies(shape: ModelShape, config: Config) -> HostCopies:
    """Return the sizes of the copies for a run of `config`."""
    learner = config.learner
    trained = shape.adapter(learner.lora.rank, learner.lora.targets) if learner.lora.enabled else shape.parameters
    models = 2 if workload_of(config).critic == "separate" else 1
    state = ADAMW if learner.optimizer == "adamw" else ADAMW_8BIT
    ranks = len(learner.rank_devices) if learner.shard == "none" else 1
    return HostCopies(
        published=_published(shape, config),
        saved_state=float(state * trained * models),
        sleeping=float(_width(config) * shape.parameters if config.actor.sleep_between_updates else 0),
        offloaded=float(ranks * (state + 2 * F32) * trained * models if learner.offload_optimizer else 0),
        saved_weights=float(F32 * trained * models),
    )


def _published(shape: ModelShape, config: Config) -> float:
    learner, width = config.learner, _width(config)
    if learner.lora.enabled and config.actor.lora == "adapter":
        return 0.0  # adapters are written from the learner's tensors
    if learner.device != "cpu":
        return float(_page_locked(shape, width))
    # The masters are what is published, unless they are divided among the ranks.
    in_place = width == F32 and not learner.lora.enabled and learner.shard != "full"
    return 0.0 if in_place else float(width * shape.parameters)


def _width(config: Config) -> int:
    return 2 if config.actor.dtype == "bfloat16" else F32


def _page_locked(shape: ModelShape, width: int) -> int:
    """Return the size of page-locked copies: torch rounds each allocation up to a power of two.

    See ATen/core/CachingHostAllocator.h. Norms and biases, below a thousandth of the whole, are left out.
    """
    tensors = [linear.inputs * linear.outputs for linear in shape.linears] * shape.layers
    tensors += [shape.head] * (1 if shape.tied else 2)
    return sum(1 << (width * values - 1).bit_length() for values in tensors)
