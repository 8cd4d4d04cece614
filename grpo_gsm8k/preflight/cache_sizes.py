"""Sizes of the KV caches of engines that do not have their GPU to themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from grpo_gsm8k.config.gpu_shares import is_shared, suite_share
from grpo_gsm8k.errors import UnknownShapeError, UserError
from grpo_gsm8k.preflight.checks import known_gpu
from grpo_gsm8k.preflight.engine_memory import cache_bytes
from grpo_gsm8k.preflight.parameters import from_weights

if TYPE_CHECKING:
    from pathlib import Path

    from grpo_gsm8k.config import Config
    from grpo_gsm8k.preflight.machine import Machine


@dataclass(frozen=True, slots=True)
class CacheSizes:
    """KV caches of the actors' engines and of the regression suite's, in bytes; None: the engine measures its room."""

    actor: int | None = None
    suite: int | None = None


def cache_sizes(config: Config, machine: Machine, model_folder: Path) -> CacheSizes:
    """Return the sizes for engines beside another process; an engine with a GPU of its own measures its room.

    Beside another process a measurement is wrong: vLLM counts every byte that disappears during its start as its own
    (vllm/utils/mem_utils.py), so its cache becomes too small, or it fails. Raises UserError if a size cannot be
    computed, unless `doctor.force`.
    """
    actor, beside = config.actor, suite_share(config)
    if actor.engine != "vllm" or actor.device == "cpu" or not (is_shared(config) or beside):
        return CacheSizes()
    gpu = known_gpu(machine, actor.device)
    try:
        if gpu is None:
            raise UnknownShapeError(f"the memory of {actor.device} is unknown without nvidia-smi")
        shape = from_weights(model_folder)
    except UnknownShapeError as error:
        if config.doctor.force:
            return CacheSizes()
        raise UserError(
            f"{error}, so the engine's cache beside another process on {actor.device} cannot be computed: use "
            "preset=two_gpu without policy_gradient.regression_suite.tasks. doctor.force=true starts anyway"
        ) from error
    return CacheSizes(
        cache_bytes(shape, config, gpu[1], actor.gpu_memory) or None,
        cache_bytes(shape, config, gpu[1], beside) or None,
    )
