"""Checks of the validations against training: overfitting, and accuracy that fell."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Final

from grpo_gsm8k.diagnoses import policy_checks
from grpo_gsm8k.diagnoses.reward_checks import (
    accuracy_fall,
    describe_fall,
    reward_function_fails,
    reward_part_gamed,
)
from grpo_gsm8k.diagnoses.run_diagnosis import Check, Found
from grpo_gsm8k.diagnoses.run_record import (
    RunRecord,
    change_of,
    first_third,
    interval_change,
    last_third,
    number,
)

if TYPE_CHECKING:
    pass


def overfitting(record: RunRecord) -> Found | None:
    """Validation falls while training still improves."""
    measured = [v for v in record.validations if number(v.get("accuracy")) is not None]
    best = max(measured, key=lambda v: number(v["accuracy"]) or 0.0, default=None)
    if best is None or interval_change(best, measured[-1]) >= 0:
        return None
    metric, values = _training(record)
    gain = change_of(values) * (-1 if record.fine_tuning else 1)
    if gain <= 0 or reward_part_gamed(record):
        return None
    before, after = (statistics.fmean(third(values)) for third in (first_third, last_third))
    earlier = (
        "stop earlier (sft.patience, sft.epochs)"
        if record.fine_tuning
        else "stop earlier (policy_gradient.updates), or train on more problems (data.train_size)"
    )
    return Found(
        f"validation fell {describe_fall(best, measured[-1])} while {metric} went from {before:.2f} to {after:.2f}",
        f"{earlier}; the best checkpoint is kept",
    )


def _training(record: RunRecord) -> tuple[str, list[float]]:
    """Return what training improves, by name, and its values; the reward only if no part of it measures right ones."""
    if record.fine_tuning:
        return "train/perplexity", record.series("train/perplexity")
    if right := record.right():
        return "the share of right completions in training", right
    return "train/reward_mean", record.series("train/reward_mean")


def accuracy_fell(record: RunRecord) -> Found | None:
    """The model is worse than at the start, and no other check has the reason."""
    if any(check(record) for check in REASONS):
        return None
    evidence = accuracy_fall(record)
    if not evidence:
        return None
    drift = max(record.series("train/kl_behaviour"), default=0.0)
    if drift >= policy_checks.DRIFT:
        evidence += f"; the largest update moved the policy by {drift:.2g} nats per token"
    more = "" if record.fine_tuning else f", or raise {record.now('policy_gradient.episodes_per_update')}"
    return Found(evidence, f"lower {record.now(record.lr_key)}{more}")


REASONS: Final = (
    overfitting,
    reward_part_gamed,
    reward_function_fails,
    policy_checks.entropy_explodes,
    policy_checks.updates_too_large,
    policy_checks.correction_masks_most,
)
CHECKS: Final = (
    Check(
        "overfitting",
        "warning",
        "interval of the last validation below that of the best, while right completions in training rise (sft: "
        "perplexity falls)",
        ("policy_gradient.updates", "data.train_size", "sft.epochs", "sft.patience"),
        overfitting,
    ),
    Check(
        "accuracy_fell",
        "warning",
        "interval of the last validation below that of the first (without two validations: fewer completions right), "
        "and no other check has the reason",
        ("learner.lr", "sft.lr", "policy_gradient.episodes_per_update"),
        accuracy_fell,
    ),
)
