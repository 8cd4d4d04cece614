"""Overrides of the command line: which keys they set, and maps that replace."""

from __future__ import annotations

import pytest

from grpo_gsm8k.orchestrator import overrides

PG = ("command=policy_gradient", "preset=cpu_demo")


@pytest.mark.parametrize(
    ("arguments", "key", "expected"),
    [
        (["policy_gradient.rewards={correct:1}"], "policy_gradient.rewards", {"correct": 1}),
        (["policy_gradient.rewards={}"], "policy_gradient.rewards", {}),
        (["+policy_gradient.rewards={format:1}"], "policy_gradient.rewards", {"format": 1}),
        (["policy_gradient.rewards.correct=1"], "policy_gradient.rewards", {"correct": 1, "format": 0.1}),
        (["+policy_gradient.rewards.short=1"], "policy_gradient.rewards", {"correct": 0.9, "format": 0.1, "short": 1}),
        (["~policy_gradient.rewards.format"], "policy_gradient.rewards", {"correct": 0.9}),
        (
            ["policy_gradient.rewards={correct:1}", "policy_gradient.rewards.format=0.5"],
            "policy_gradient.rewards",
            {"correct": 1, "format": 0.5},
        ),
        (
            ["policy_gradient.rewards={correct:1}", "policy_gradient.rewards={format:2}"],
            "policy_gradient.rewards",
            {"format": 2},
        ),
        (["data.params={min_terms:2}"], "data.params", {"min_terms": 2}),
        (["data.params={other:2}"], "data.params", {"other": 2}),
        (["policy_gradient.kl={coef:0.5}"], "policy_gradient.kl.estimator", "k3"),  # a section is not a map
    ],
    ids=str,
)
def test_a_map_given_on_the_command_line_replaces(arguments: list[str], key: str, expected: object) -> None:
    assert overrides.value_at(overrides.compose_arguments([*PG, *arguments]), key) == expected


def test_all_maps_are_found() -> None:
    assert {key for key in overrides.all_keys() if overrides._holds_a_map(key)} == {
        "cluster.resources",
        "data.params",
        "data.columns",
        "data.where",
        "policy_gradient.rewards",
    }


def test_keys_that_arguments_set() -> None:
    arguments = [*PG, "policy_gradient=ppo", "learner.lr=1", "policy_gradient.kl={coef:1}", "data.params={a:1}"]
    arguments += ["+policy_gradient.rewards.short=1", "~policy_gradient.rewards.format"]
    assert overrides.groups_of(arguments) == {"preset": "cpu_demo", "policy_gradient": "ppo"}
    assert overrides.keys_set(arguments) == [
        *("command", "learner.lr", "policy_gradient.kl.coef", "data.params"),
        *("policy_gradient.rewards.short", "policy_gradient.rewards.format"),
    ]
    assert overrides.value_arguments(arguments) == ["command=policy_gradient", *arguments[3:]]


def test_recorded_groups_that_no_longer_exist_are_left_out() -> None:
    recorded = ["command=sft", "preset=cpu_demo", "preset=gone", "learner=lora", "note=***", "learner.lr=1"]
    assert overrides.known_groups(recorded) == {"preset": "cpu_demo", "learner": "lora"}
