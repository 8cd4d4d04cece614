"""`command=doctor`: the report about this machine, or with `doctor.plan` how large a run should be."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from grpo_gsm8k.config import Config


def examine(config: Config) -> int:
    """Print the report or the plan; returns the exit code."""
    if config.doctor.plan:
        from grpo_gsm8k.planning.plan_report import show_plan  # lazy: imports torch

        return show_plan(config)
    from grpo_gsm8k.preflight.doctor import doctor

    return doctor(config)
