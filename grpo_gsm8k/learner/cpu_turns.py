"""Whether learner and engine take turns on the same CPU cores."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from grpo_gsm8k.config import Config


def takes_turns(config: Config, cores: int) -> bool:
    """Whether both are on the CPU with more threads than `cores`, and nothing but a validation runs beside an update.

    With a staleness above 0, rollouts run beside updates, too; that is what the threads are then divided for. Pinned
    processes have cores of their own, of which this one sees no others.
    """
    if config.actor.cores or config.learner.cores:
        return False
    on_cpu = config.actor.device == config.learner.device == "cpu"
    alone = config.command == "sft" or config.policy_gradient.max_staleness == 0
    return on_cpu and alone and config.all_threads > cores
