"""Simulated runs against times computed by hand, one limit of the pipeline at a time."""

from __future__ import annotations

from typing import Any

import pytest

from grpo_gsm8k.errors import UserError
from grpo_gsm8k.learner.rollouts import RolloutGroup
from grpo_gsm8k.planning import simulated_learner
from grpo_gsm8k.planning.simulate import SimulatedRun, Size, predict, simulate
from grpo_gsm8k.planning.steady_state import LEARNER, SteadyState
from tests.planning.pipelines import (
    COMPLETIONS,
    GROUPS,
    LENGTH,
    PROMPT,
    PUBLISH_S,
    RECORDS_S,
    SEQUENCE_S,
    SIZE,
    STEP_S,
    TOKEN_S,
    TOKENS,
    config_of,
    pipeline_of,
)

LEARNING_S = TOKENS * TOKEN_S
GENERATING_S = LENGTH * (STEP_S + COMPLETIONS * SEQUENCE_S)


def state_of(actors: int = 1, max_staleness: int = 0, **changes: Any) -> SteadyState:
    return simulate(config_of(actors, max_staleness), pipeline_of(**changes))


def test_without_overlap_an_update_is_the_sum_of_its_phases() -> None:
    """Records are written while the engine generates already."""
    state = state_of(load_s=0.2, verify_s=0.1, message_s=0.01, prompt_token_s=0.001)
    copy_s, prompts_s, messages_s = 0.2 + 0.1, GROUPS * PROMPT * 0.001, 2 * 0.01
    assert state.step_s == pytest.approx(LEARNING_S + PUBLISH_S + copy_s + prompts_s + GENERATING_S + messages_s)
    waited_s = copy_s + prompts_s + GENERATING_S + messages_s - RECORDS_S
    assert state.learner_idle == pytest.approx(waited_s / state.step_s)
    assert state.engines_idle == pytest.approx(1 - (GENERATING_S + prompts_s + 0.2) / state.step_s)


def test_two_engines_share_the_completions_of_an_update() -> None:
    half_s = LENGTH * (STEP_S + COMPLETIONS / 2 * SEQUENCE_S)
    assert state_of(actors=2).step_s == pytest.approx(LEARNING_S + PUBLISH_S + half_s)


def test_a_slow_learner_is_the_limit_of_overlapping_work() -> None:
    """It computes, publishes and records, and never waits."""
    state = state_of(max_staleness=1, token_s=20 * TOKEN_S)
    assert state.step_s == pytest.approx(20 * LEARNING_S + PUBLISH_S + RECORDS_S)
    assert state.learner_idle == pytest.approx(0.0)
    assert state.engines_idle == pytest.approx(1 - GENERATING_S / state.step_s, rel=0.02)


@pytest.mark.parametrize("max_staleness", [1, 2, 4])
def test_a_slow_engine_is_the_limit_of_overlapping_work(max_staleness: int) -> None:
    """It always runs as many sequences as it can: those of one update."""
    state = state_of(max_staleness=max_staleness, step_s=20 * STEP_S)
    assert state.step_s == pytest.approx(LENGTH * (20 * STEP_S + COMPLETIONS * SEQUENCE_S))
    assert state.engines_idle == pytest.approx(0.0, abs=1e-6)


def test_a_second_slow_engine_doubles_the_speed() -> None:
    """Each has room for as many sequences as an update has, so both together run two updates at once."""
    state = simulate(config_of(2, 4, "actor.device=cuda:0"), pipeline_of(step_s=20 * STEP_S))
    one_s = LENGTH * (20 * STEP_S + COMPLETIONS * SEQUENCE_S)
    assert state.step_s == pytest.approx(one_s / 2, rel=0.02)


def test_on_a_cpu_less_urgent_requests_wait() -> None:
    """As in a real run, so each of two engines runs its half of one update at a time."""
    state = state_of(actors=2, max_staleness=4, step_s=20 * STEP_S)
    assert state.step_s == pytest.approx(LENGTH * (20 * STEP_S + COMPLETIONS / 2 * SEQUENCE_S))


def test_a_slow_network_is_the_limit_of_overlapping_work() -> None:
    """1 GB to each of 4 machines over 1 Gbit/s takes 8 s each, and every version is copied."""
    state = simulate(config_of(4, 2), pipeline_of(gbit_s=1.0))
    assert state.step_s == pytest.approx(4 * 8.0, rel=0.01)


def test_without_overlap_the_copies_are_one_more_phase() -> None:
    size = Size(actors=2, ranks=1, max_staleness=0, gbit_s=10.0)
    state = predict(config_of(), pipeline_of(), size)
    half_s = LENGTH * (STEP_S + COMPLETIONS / 2 * SEQUENCE_S)
    assert state.step_s == pytest.approx(LEARNING_S + PUBLISH_S + half_s + 2 * 0.8)


def test_engines_on_one_machine_share_a_copy() -> None:
    size = Size(actors=2, ranks=1, max_staleness=0, gbit_s=10.0)
    one, two = (predict(config_of(), pipeline_of(engines_per_machine=n), size).step_s for n in (2, 1))
    assert two - one == pytest.approx(0.8)


def test_ranks_share_the_tokens_and_exchange_gradients() -> None:
    """8 groups of equal length: 4 for each of 2 ranks, 3 for the first two of 3 ranks."""
    slow = {"max_staleness": 1, "token_s": 20 * TOKEN_S}
    rest_s = PUBLISH_S + RECORDS_S
    two, three = (state_of(ranks=n, exchange_s=0.6, **slow).step_s for n in (2, 3))
    assert two == pytest.approx(20 * LEARNING_S / 2 + 0.6 / 2 + rest_s)
    assert three == pytest.approx(20 * LEARNING_S * 3 / 8 + 0.6 * 2 / 3 + rest_s)


@pytest.mark.parametrize("max_staleness", [0, 1, 3])
def test_the_limit_of_staleness_holds(max_staleness: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pacing is that of real runs: it is used up by a slow learner, and never exceeded."""
    oldest: list[int] = []
    real = simulated_learner.learning_s

    def learning_s(rates: Any, groups: list[RolloutGroup], *rest: Any) -> float:
        spans = [graded.completion.version_spans[0].version for group in groups for graded in group.completions]
        oldest.append(min(spans))
        return real(rates, groups, *rest)

    monkeypatch.setattr(simulated_learner, "learning_s", learning_s)
    state_of(max_staleness=max_staleness, token_s=20 * TOKEN_S)
    staleness = [update - version for update, version in enumerate(oldest)]
    assert max(staleness) == staleness[-1] == max_staleness


def test_a_validation_delays_the_next_weights() -> None:
    """Without overlap the learner waits for it: 3 more sequences of the same length run beside the rollouts."""
    every = config_of(1, 0, "policy_gradient.eval_every=1", "actor.max_num_seqs=4096")
    pipeline = pipeline_of(max_sequences=10**6)
    state = simulate(every, pipeline)
    beside_s = LENGTH * (STEP_S + (COMPLETIONS + 3) * SEQUENCE_S)
    assert state.step_s == pytest.approx(LEARNING_S + PUBLISH_S + beside_s)


def test_the_learner_does_its_work_in_the_order_of_a_real_one() -> None:
    """`prepare` is a part of the simulated update."""
    run = SimulatedRun(config_of(1, 1, "policy_gradient.updates=4"), pipeline_of())
    names = [span.name for span in run.run() if span.row == LEARNER]
    order = ["wait for rollouts", "grading", "update", "publish", "records"]
    assert names[:2] == ["publish", "wait for the engine"]
    assert names[2:22] == order * 4
    assert names[22:] == ["checkpoint", "wait for validations", "validation results"]  # those of the last version


def test_the_same_run_is_predicted_the_same() -> None:
    assert state_of(2, 2) == state_of(2, 2)


@pytest.mark.parametrize(
    ("word", "key"),
    [
        ("policy_gradient.active_sampling=2", "active_sampling"),
        ("data.sampler=difficulty", "data.sampler"),
        ("policy_gradient.late=drop", "late=drop"),
    ],
)
def test_what_depends_on_rewards_is_refused(word: str, key: str) -> None:
    with pytest.raises(UserError, match=key):
        simulate(config_of(1, 1, word), pipeline_of())


def test_groups_may_have_other_sizes_than_the_recorded_ones() -> None:
    """Then lengths are drawn from a recorded group."""
    config = config_of(1, 0, f"policy_gradient.group_size={2 * SIZE}")
    assert simulate(config, pipeline_of()).step_s == pytest.approx(
        (TOKENS - GROUPS // 2 * PROMPT) * TOKEN_S + PUBLISH_S + GENERATING_S
    )
