"""How one GPU is divided when several processes of a run use it. Pure functions of the configuration; bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from grpo_gsm8k.config.whole_config import Config

CUDA_CONTEXT = 0.6 * 2**30  # the driver's context, kernels and cuBLAS workspaces of one process
LEARNER_MARGIN = 0.03  # of a shared GPU: neither the engines' nor the learner's, for the contexts of all processes
PROCESS_MARGIN = 0.75 * 2**30  # and at least this for each process: its context, and NCCL in an engine

SLEEPING_ENGINE = 2.0 * 2**30  # assumed: captured graphs and what libraries allocate, which vLLM keeps while it sleeps


def is_shared(config: Config) -> bool:
    """Whether the learner and the first engine use the same GPU, as in `preset=one_gpu`."""
    return config.actor.device == config.learner.device != "cpu"


def suite_share(config: Config) -> float:
    """Return the fraction of the first engine's GPU that the regression suite's engine gets; 0 without a suite."""
    suite = config.policy_gradient.regression_suite
    runs = config.command in ("policy_gradient", "doctor") and bool(suite.tasks)
    return suite.gpu_memory if runs and config.actor.device != "cpu" else 0.0


def learner_bytes(config: Config, total: float, actor_share: float | None = None) -> float:
    """Return how much of a shared GPU of `total` bytes the learner's tensors may take, its CUDA context not included.

    The rest belongs to the engine (`actor_share`, by default `actor.gpu_memory`), the regression suite's engine and
    the contexts of all processes, which are more than LEARNER_MARGIN of a small GPU.
    """
    share = config.actor.gpu_memory if actor_share is None else actor_share
    suite = suite_share(config)
    processes = 3 if suite else 2
    return max(0.0, total * (1 - share - suite) - max(LEARNER_MARGIN * total, PROCESS_MARGIN * processes))


def learner_bytes_alone(config: Config, total: float) -> float:
    """Return how much of a shared GPU the learner's tensors may take while the engine sleeps between updates.

    Without `actor.sleep_between_updates` the engine never does.
    """
    if not config.actor.sleep_between_updates:
        return learner_bytes(config, total)
    return learner_bytes(config, total, SLEEPING_ENGINE / total)
