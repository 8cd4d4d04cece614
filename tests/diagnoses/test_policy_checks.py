"""Checks of the policy and its optimization: recorded runs, and records made from them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.diagnoses.recorded_runs import changed, found, recorded, with_settings

GOOD = recorded("good")
N = len(GOOD.updates)


def test_entropy_that_explodes() -> None:
    """`policy_gradient.entropy_coef=1`."""
    diagnosis = found(recorded("entropy_bonus"))["entropy_explodes"]
    assert diagnosis.evidence == "entropy 0.191 at the start, 0.64 nats per token at the end"
    assert diagnosis.advice == "lower policy_gradient.entropy_coef (now 1)"


def test_entropy_that_collapses() -> None:
    """Constructed: the demo's model reaches its accuracy before its entropy falls that low."""
    entropy = np.geomspace(0.2, 0.001, N).tolist()
    stuck = replace(changed(GOOD, train__entropy=entropy, train__reward_correct=0.4), validations=())
    assert "entropy 0.200 at the start, 0.00" in found(stuck)["entropy_collapsed"].evidence
    assert found(stuck)["entropy_collapsed"].severity == "warning"
    assert found(replace(stuck, validations=GOOD.validations))["entropy_collapsed"].severity == "note"  # 46 % to 87 %
    assert "entropy_collapsed" not in found(changed(stuck, train__reward_correct=0.95))  # sure, and right
    assert "entropy_collapsed" not in found(changed(stuck, train__entropy=0.01))  # sharp from the start


def test_a_policy_that_leaves_its_reference() -> None:
    """`learner.lr=4e-3` with `policy_gradient.kl.coef=0.001`."""
    diagnosis = found(recorded("kl"))["kl_runs_away"]
    assert diagnosis.line.startswith("KL runs away: 3.29 nats per token from the reference")
    assert "raise policy_gradient.kl.coef (now 0.001)" in diagnosis.advice


def test_a_spike_of_the_divergence_is_not_a_trend() -> None:
    values = [0.02] * N
    values[-3] = 7640.0
    assert "kl_runs_away" not in found(changed(GOOD, train__kl_reference=values))


def test_stale_completions_and_large_updates() -> None:
    """`policy_gradient.max_staleness=8 learner.lr=4e-3`."""
    kinds = found(recorded("stale"))
    assert kinds["staleness_high"].evidence.startswith("completions are 7.")
    assert kinds["staleness_high"].severity == "warning"
    assert "6.42 nats per token" in kinds["updates_too_large"].evidence
    assert kinds["clip_fraction_high"].evidence == "44 % of trained tokens clipped"
    assert "accuracy_fell" not in kinds  # it has a reason


def test_staleness_without_drift_is_a_note_and_with_a_correction_nothing() -> None:
    record = changed(GOOD, rollout__staleness_mean=4.0)
    assert found(record)["staleness_high"].severity == "note"
    assert "staleness_high" not in found(with_settings(record, policy_gradient__off_policy__correction="truncate"))


def test_clipping_of_whole_sequences_is_frequent_by_design() -> None:
    record = changed(GOOD, train__clip_frac=0.4)
    assert "clip_fraction_high" in found(record)
    assert "clip_fraction_high" not in found(with_settings(record, policy_gradient__ratio="geometric_mean"))


def test_gradients() -> None:
    """Constructed: spikes, and the demo's own gradients with a limit of 0.01."""
    norms = [0.3] * N
    norms[4], norms[9] = 20.0, 30.0
    assert "gradient_spikes" not in found(changed(GOOD, train__grad_norm=norms))
    norms[14] = 40.0
    evidence = found(changed(GOOD, train__grad_norm=norms))["gradient_spikes"].evidence
    assert evidence.startswith(
        "3 of 30 updates have a gradient norm above 10 times the median of 0.3; the largest is 40"
    )
    clipped = found(with_settings(GOOD, learner__max_grad_norm=0.01))["gradient_always_clipped"]
    assert clipped.evidence.startswith("100 % of updates clipped; the median norm 0.")
    assert clipped.advice == "raise learner.max_grad_norm (now 0.01)"


def test_gradients_that_are_not_finite() -> None:
    """`learner.lr=1e8`."""
    evidence = found(recorded("nonfinite"))["gradients_not_finite"].evidence
    assert evidence == "1 of 10 optimizer steps skipped, because their gradient was not finite"


def test_a_learning_rate_of_zero() -> None:
    diagnosis = found(recorded("no_lr"))["update_without_effect"]
    assert diagnosis.evidence == "learning rate 0 in all 10 updates"
    assert diagnosis.advice == "raise learner.lr (now 0)"
    sft = replace(recorded("no_lr"), config={"command": "sft"})
    assert found(sft)["update_without_effect"].advice == "raise sft.lr (now 0)"


def test_gradients_of_zero() -> None:
    """Constructed: unless the groups are tied, which has diagnoses of its own."""
    still = changed(GOOD, train__grad_norm=0.0)
    assert found(still)["update_without_effect"].evidence.startswith("gradient norm 0 in all 30 updates")
    assert "update_without_effect" not in found(changed(still, train__frac_zero_variance_groups=1.0))


def test_a_critic_that_does_not_learn() -> None:
    """`policy_gradient=ppo policy_gradient.critic.lr=0`."""
    diagnosis = found(recorded("ppo_dead"))["critic_explains_nothing"]
    assert diagnosis.evidence.startswith("explained variance 0 ")
    assert "raise policy_gradient.critic.lr (now 0)" in diagnosis.advice
    better = changed(recorded("ppo_dead"), train__explained_variance=0.16)  # the demo's value, which is low but real
    assert "critic_explains_nothing" not in found(better)


@pytest.mark.parametrize(
    ("dtype", "gap", "shown"), [("float32", 0.02, True), ("bfloat16", 0.04, False), ("bfloat16", 0.2, True)]
)
def test_engine_and_learner_that_disagree(dtype: str, gap: float, shown: bool) -> None:
    """Constructed: float32 and even bfloat16 (0.003) agree with the demo's model."""
    kinds = {"actor__dtype": dtype, "learner__dtype": dtype}
    record = changed(with_settings(GOOD, **kinds), sync__logprob_gap_mean=gap)
    assert ("logprob_gap_high" in found(record)) == shown
    sampled = with_settings(record, policy_gradient__top_p=0.9)  # the gap contains what top_p changes
    assert "logprob_gap_high" not in found(sampled)
    canary = changed(record, sync__logprob_gap_mean=None, sync__canary_gap=gap)  # stale batches have no other gap
    assert ("logprob_gap_high" in found(canary)) == shown


def test_a_correction_that_masks_nearly_all_tokens() -> None:
    """Constructed, with the value that `off_policy.low=1 off_policy.high=1` gave on the demo."""
    record = with_settings(changed(GOOD, train__correction_masked_frac=0.99), policy_gradient__off_policy__high=1.0)
    assert found(record)["correction_masks_most"].evidence.startswith("99 % of trained tokens masked")
