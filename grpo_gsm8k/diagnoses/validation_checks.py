"""Checks of the validations against training: overfitting, and accuracy that fell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from grpo_gsm8k.diagnoses import policy_checks
from grpo_gsm8k.diagnoses.reward_checks import reward_part_gamed
from grpo_gsm8k.diagnoses.run_diagnosis import Check, Found
from grpo_gsm8k.diagnoses.run_record import (
    RunRecord,
    change_of,
    interval_change,
    number,
    percent,
    validation_change,
    whole,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

TRAINING_FALL: Final = 0.1  # of right completions, for runs without two validations


def overfitting(record: RunRecord) -> Found | None:
    """Validation falls while training still improves."""
    measured = [v for v in record.validations if number(v.get("accuracy")) is not None]
    best = max(measured, key=lambda v: number(v["accuracy"]) or 0.0, default=None)
    if best is None or interval_change(best, measured[-1]) >= 0:
        return None
    metric = "train/perplexity" if record.fine_tuning else "train/reward_mean"
    gain = record.change(metric) * (-1 if record.fine_tuning else 1)
    if gain <= 0 or reward_part_gamed(record):
        return None
    before, after = record.early(metric), record.late(metric)
    earlier = (
        "stop earlier (sft.patience, sft.epochs)"
        if record.fine_tuning
        else "stop earlier (policy_gradient.updates), or train on more problems (data.train_size)"
    )
    return Found(
        f"validation fell {_fall(best, measured[-1])} while {metric} went from {before:.3g} to {after:.3g}",
        f"{earlier}; the best checkpoint is kept",
    )


def accuracy_fell(record: RunRecord) -> Found | None:
    """The model is worse than at the start, and no other check has the reason."""
    explained = (overfitting, reward_part_gamed, policy_checks.entropy_explodes, policy_checks.updates_too_large)
    if any(check(record) for check in explained):
        return None
    right, measured = record.right(), record.validations
    if validation_change(measured) < 0:
        evidence = f"validation fell {_fall(measured[0], measured[-1])}"
    elif len(measured) < 2 and record.setting("data.sampler") != "difficulty" and change_of(right) < -TRAINING_FALL:
        evidence = f"right completions fell from {percent(right[0])} to {percent(record.late_right() or 0.0)}"
    else:
        return None
    drift = max(record.series("train/kl_behaviour"), default=0.0)
    if drift >= policy_checks.DRIFT:
        evidence += f"; the largest update moved the policy by {drift:.2g} nats per token"
    return Found(evidence, f"lower {record.lr_key} (now {whole(record.setting(record.lr_key))})")


def _fall(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    ends = (f"{percent(number(v.get('accuracy')) or 0.0)} (update {v.get('version')})" for v in (before, after))
    return "from {} to {}".format(*ends)


CHECKS: Final = (
    Check(
        "overfitting",
        "warning",
        "interval of the last validation below that of the best, while the training reward rises (perplexity falls)",
        ("policy_gradient.updates", "data.train_size", "sft.epochs", "sft.patience"),
        overfitting,
    ),
    Check(
        "accuracy_fell",
        "warning",
        "interval of the last validation below that of the first (without two validations: fewer completions right), "
        "and no other check has the reason",
        ("learner.lr", "sft.lr"),
        accuracy_fell,
    ),
)
