"""Checks of the validations against training."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from grpo_gsm8k.diagnoses.run_record import RunRecord
from tests.diagnoses.recorded_runs import changed, found, recorded, with_settings

GOOD = recorded("good")


def validation(version: int, accuracy: float) -> dict[str, Any]:
    ends = {"accuracy_ci_low": accuracy - 0.04, "accuracy_ci_high": accuracy + 0.04}
    return {"version": version, "accuracy": accuracy, **ends}


def test_accuracy_that_fell() -> None:
    """`learner.lr=1e8`."""
    diagnosis = found(recorded("nonfinite"))["accuracy_fell"]
    assert diagnosis.evidence.startswith("validation fell from 56 % (update 0) to 0 % (update 10)")
    assert diagnosis.advice.startswith("lower learner.lr (now 1e+08)")


def test_training_on_few_problems() -> None:
    """30 updates on 16 problems, of a model that starts at 90 %."""
    diagnosis = found(recorded("few_problems"))["overfitting"]
    assert diagnosis.evidence == (
        "validation fell from 90 % (update 0) to 21 % (update 30) while the share of right completions in training "
        "went from 0.35 to 0.73"
    )
    assert "data.train_size" in diagnosis.advice
    assert "accuracy_fell" not in found(recorded("few_problems"))


def test_intervals_that_overlap_are_no_fall() -> None:
    near = replace(GOOD, validations=[validation(0, 0.50), validation(30, 0.43)])
    assert found(near) == found(replace(GOOD, validations=()))


def test_training_counts_only_without_two_validations() -> None:
    """Constructed: right completions fall in training."""
    falls = changed(GOOD, train__reward_correct=np.linspace(0.6, 0.1, 30).tolist())
    assert "accuracy_fell" not in found(falls)  # validation rose
    alone = replace(falls, validations=GOOD.validations[:1])
    assert found(alone)["accuracy_fell"].evidence == "right completions fell from 60 % to 18 %"
    harder = with_settings(alone, data__sampler="difficulty")  # which draws what the model fails at
    assert "accuracy_fell" not in found(harder)


def test_fine_tuning_that_learns_by_heart() -> None:
    """Constructed: perplexity falls to the end, validation falls from its best."""
    updates = [{"step": n, "train/perplexity": 3.0 - n / 20, "train/lr": 1e-3} for n in range(1, 31)]
    validations = [validation(0, 0.2), validation(10, 0.6), validation(30, 0.4)]
    record = RunRecord(updates, validations, config={"command": "sft"})
    (diagnosis,) = found(record).values()
    assert diagnosis.kind == "overfitting"
    assert diagnosis.evidence.startswith(
        "validation fell from 60 % (update 10) to 40 % (update 30) while train/perplexity"
    )
    assert "sft.patience" in diagnosis.advice
    assert found(replace(record, validations=validations[:2])) == {}
