"""Checks of rewards and completions: recorded runs, and records made from them where a CPU run does not show it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tests.diagnoses.recorded_runs import changed, found, recorded, with_settings

GOOD = recorded("good")
N = len(GOOD.updates)


def test_answers_in_another_format() -> None:
    """`prompt.answer_format=boxed`, for a model that writes `#### 18`."""
    diagnosis = found(recorded("wrong_format"))["answers_never_parsed"]
    assert diagnosis.evidence == "100 % of the last validation's answers have no readable result"
    assert "set prompt.answer_format (now boxed)" in diagnosis.advice


def test_unread_answers_are_found_in_training_without_a_validation() -> None:
    record = replace(recorded("wrong_format"), validations=())
    assert found(record)["answers_never_parsed"].evidence == "0 % of completions are well-formed, 0 % truncated"


def test_a_first_validation_says_nothing_about_what_training_taught() -> None:
    validations = [{"version": 0, "format_error_frac": 1.0}]
    assert found(replace(GOOD, validations=validations)) == found(GOOD)


def test_problems_that_are_too_hard() -> None:
    """Sums of four numbers with three digits: none of 640 completions is right; the format part has the variance."""
    record = recorded("hard")
    assert (record.late("train/frac_zero_variance_groups") or 1) < 0.8
    assert "0 % of completions right, 0 % truncated" in found(record)["reward_zero_wrong"].evidence
    some = changed(record, train__reward_correct=[0.02] * len(record.updates))
    assert "reward_zero_wrong" not in found(some)


def test_a_model_that_broke_is_not_told_to_write_longer() -> None:
    """The short limit's run, had its first update been better: then the limit is not the reason."""
    record = recorded("short_limit")
    rights = [0.4] + [0.0] * (len(record.updates) - 1)
    assert "reward_zero_truncated" not in found(changed(record, train__reward_correct=rights))


def test_groups_that_agree() -> None:
    """`policy_gradient.temperature=0.01` with `active_sampling=2`."""
    kinds = found(recorded("resample"))
    assert "88 % of groups tied, although 66 % of completions are right" in kinds["groups_tied"].evidence
    assert "raise policy_gradient.temperature (now 0.01)" in kinds["groups_tied"].advice
    assert "active_sampling" not in kinds["groups_tied"].advice  # it is on
    assert kinds["resampling_exhausted"].evidence.startswith("2.0 of 2 further prompts drawn")


def test_problems_that_are_too_easy() -> None:
    """A trained model at `temperature=0.1`. Constructed: one that can do all problems only at the end of its run."""
    easy = found(recorded("easy"))["groups_tied_at_one"]
    assert (easy.severity, easy.evidence) == ("warning", "92 % of groups tied, 93 % of completions right")
    tied, right = np.linspace(0.1, 1.0, N).tolist(), np.linspace(0.5, 1.0, N).tolist()
    late = found(changed(GOOD, train__frac_zero_variance_groups=tied, train__reward_correct=right))[
        "groups_tied_at_one"
    ]
    assert late.severity == "note"
    always = changed(GOOD, train__frac_zero_variance_groups=0.9, train__reward_correct=0.97)
    assert found(always)["groups_tied_at_one"].severity == "warning"
    assert "90 % of groups tied, 97 % of completions right" in found(always)["groups_tied_at_one"].evidence


def test_truncation() -> None:
    """Constructed: the demo's model learns to be shorter than any limit that truncates it."""
    diagnosis = found(changed(GOOD, rollout__truncated_frac=0.4))["truncation_high"]
    assert diagnosis.evidence == "40 % of completions truncated at 48 tokens, which earn nothing"
    assert "truncation_high" not in found(changed(GOOD, rollout__truncated_frac=0.2))


def test_lengths_that_run_away() -> None:
    """Constructed: twice as long, often truncated, and not better."""
    cut, longer = np.linspace(0, 0.5, N).tolist(), np.linspace(18, 40, N).tolist()
    flat = replace(changed(GOOD, train__reward_correct=0.3), validations=())
    record = changed(flat, rollout__truncated_frac=cut, rollout__length_mean=longer)
    evidence = found(record)["length_runs_away"].evidence
    assert evidence.startswith("18 tokens at the start, 37 at the end, 42 % truncated")
    better = replace(record, validations=GOOD.validations)  # 46 % to 87 %
    assert "length_runs_away" not in found(better)
    assert "length_runs_away" not in found(changed(record, rollout__truncated_frac=0.0))


def test_a_reward_that_pays_for_length() -> None:
    """A function of `rewards_file` with the weight 3."""
    diagnosis = found(recorded("long_reward"))["reward_part_gamed"]
    assert diagnosis.evidence.startswith("reward part long rose from 0.53 to 0.7")
    assert "while validation fell from 56 % (update 0) to 11 % (update 10)" in diagnosis.evidence
    assert diagnosis.advice == "lower policy_gradient.rewards.long (now 3)"


def test_a_part_that_hardly_pays_is_not_gamed() -> None:
    record = with_settings(recorded("long_reward"), policy_gradient__rewards={"correct": 0.9, "long": 0.01})
    assert "reward_part_gamed" not in found(record)
    assert "accuracy_fell" in found(record)


def test_a_reward_function_that_fails() -> None:
    """It raises for completions of more than 15 tokens; its processes start again each time, so both workers wait."""
    kinds = found(recorded("failing"))
    assert kinds["reward_function_fails"].evidence == "279 failures counted as 0, in 640 completions"
    assert kinds["grading_blocks_both"].evidence.startswith("the learner waits 82 % of the time, the engine 66 %")
    assert "learner_waits_for_generation" not in kinds
    assert "accuracy_fell" not in kinds


def test_grading_that_blocks_the_learner() -> None:
    """Constructed: today's metrics tell waiting for grades from waiting for completions; the engine may be busy."""
    record = changed(recorded("failing"), time__learner_idle_frac=0.1, time__actor_idle_frac=0.0)
    slow = changed(record, time__grading_s=[u["time/step_s"] / 4 for u in record.updates])
    assert found(slow)["grading_blocks_both"].evidence.startswith("the learner waits 25 % of the time for completions")
    quick = changed(record, time__grading_s=[u["time/step_s"] / 10 for u in record.updates])
    assert "grading_blocks_both" not in found(quick)
