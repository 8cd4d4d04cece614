"""What a run is told: recorded runs, healthy ones, short ones, older ones."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from grpo_gsm8k.config import Config
from grpo_gsm8k.config_keys import dotted_keys
from grpo_gsm8k.diagnoses.diagnose import CHECKS, as_summary, diagnose, warning_lines
from grpo_gsm8k.diagnoses.run_record import MIN_UPDATES, RunRecord
from grpo_gsm8k.tracking.metrics import METRICS
from tests.diagnoses.recorded_runs import FOLDER, found, names, recorded, warnings

# Warnings of each recorded run, all of them.
WARNINGS = {
    "good": set(),
    "short_limit": {"reward_zero_truncated"},
    "wrong_format": {"answers_never_parsed"},
    "nonfinite": {"accuracy_fell", "gradients_not_finite"},
    "no_lr": {"update_without_effect"},
    "entropy_bonus": {"entropy_explodes"},
    "few_seqs": set(),
    "every_eval": set(),
    "long_reward": {"reward_part_gamed"},
    "resample": {"groups_tied"},
    "hard": {"reward_zero_wrong"},
    "easy": {"groups_tied_at_one"},
    "few_problems": {"overfitting"},
    "kl": {"kl_runs_away", "entropy_explodes"},
    "ppo_dead": {"critic_explains_nothing"},
    "stale": {"staleness_high", "updates_too_large", "clip_fraction_high"},
    "failing": {"reward_function_fails"},
}


def test_the_recorded_runs_are_small() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 150_000
    assert set(names()) == set(WARNINGS)


@pytest.mark.parametrize("name", WARNINGS)
def test_a_recorded_run_gets_its_warnings_and_no_others(name: str) -> None:
    assert warnings(recorded(name)) == WARNINGS[name]


@pytest.mark.parametrize("name", WARNINGS)
def test_a_diagnosis_has_figures_and_a_key(name: str) -> None:
    for diagnosis in diagnose(recorded(name)):
        assert re.search(r"\d", diagnosis.evidence), diagnosis
        assert any(key in diagnosis.advice for key in diagnosis.keys), diagnosis
        assert "None" not in diagnosis.line
        assert diagnosis.line.isascii()


@pytest.mark.parametrize("name", WARNINGS)
def test_a_short_run_has_no_diagnosis_of_a_trend(name: str) -> None:
    """What needs no trend: a learning rate of 0, skipped steps, failures of a reward function."""
    whole = recorded(name)
    short = replace(whole, updates=whole.updates[: MIN_UPDATES - 1], validations=whole.validations[:1])
    assert set(found(short)) <= {"update_without_effect", "gradients_not_finite", "reward_function_fails"}


@pytest.mark.parametrize("name", WARNINGS)
def test_missing_metrics_and_settings_do_not_crash(name: str) -> None:
    whole = recorded(name)
    for metric in {metric for update in whole.updates for metric in update}:
        less = [{key: value for key, value in update.items() if key != metric} for update in whole.updates]
        nulls = [{**update, metric: None} for update in whole.updates]
        diagnose(replace(whole, updates=less))
        diagnose(replace(whole, updates=nulls))
    bare = [{key: value for key, value in v.items() if key == "version"} for v in whole.validations]
    diagnose(replace(whole, config={}, machine={}, validations=bare))
    diagnose(replace(whole, config={"policy_gradient": None, "actor": "text"}, updates=()))
    assert diagnose(RunRecord([])) == ()


def test_kinds_are_given_once_and_name_real_keys_and_metrics() -> None:
    assert len({check.kind for check in CHECKS}) == len(CHECKS) >= 12
    keys = dotted_keys(Config)
    for check in CHECKS:
        assert [key for key in check.keys if key not in keys] == [], check.kind
        for metric in re.findall(r"`(\w+/\w+)`", check.shown_if):
            assert metric in METRICS, check.kind


def test_the_summary_gives_the_lines_of_the_terminal() -> None:
    summary = json.loads(json.dumps({"diagnoses": as_summary(diagnose(recorded("short_limit")))}))
    (line,) = warning_lines(summary)
    assert line == (
        "warning: reward zero truncated: 100 % of groups tied, 0 % of completions right, 100 % truncated: "
        "raise policy_gradient.max_new_tokens (now 4)"
    )


def test_an_older_summary_gives_no_lines() -> None:
    assert warning_lines({"status": "done"}) == []
