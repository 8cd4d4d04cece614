"""The update: gradients against an independent derivation, independence of packing, clipping seen to act."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from grpo_gsm8k.config import Config
from grpo_gsm8k.learner.batching import Sample
from grpo_gsm8k.learner.model import Policy, load_policy
from grpo_gsm8k.learner.optimizer import Optimizer
from grpo_gsm8k.learner.update import forward, microbatches, update_policy
from tests.learner.conftest import random_groups, small_config

LOSS_TYPES = ["no_baseline", "reinforce_with_baseline", "grpo_clip"]


def gradients(policy: Policy, samples: list[Sample], config: Config) -> tuple[float, torch.Tensor]:
    """Loss and flat gradient of one optimizer step, by the project's code."""
    policy.model.zero_grad()
    loss = 0.0
    for micro in microbatches(samples, config.learner.token_budget, policy.device):
        output, _ = forward(policy, micro, config)
        output.loss.backward()
        loss += output.loss.item()
    return loss, torch.cat([p.grad.flatten() for _, p in policy.named_parameters()])


def independent(model_folder: Path, samples: list[Sample], loss_type: str) -> tuple[float, torch.Tensor]:
    """The same in float64 with Hugging Face's own attention: one sequence at a time, one token at a time."""
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float64, attn_implementation="eager")
    total = torch.zeros((), dtype=torch.float64)
    for sample in samples:
        ids = [*sample.prompt_ids.tolist(), *sample.completion_ids.tolist()]
        logits = model(torch.tensor([ids])).logits[0].double()
        mean = torch.zeros((), dtype=torch.float64)
        for i, token in enumerate(sample.completion_ids.tolist()):
            row = logits[len(sample.prompt_ids) + i - 1]  # predicts position prompt + i
            logprob = row[token] - torch.log(torch.exp(row).sum())
            if loss_type == "grpo_clip":
                ratio = torch.exp(logprob - float(sample.behaviour_logprobs[i]))
                bounded = min(max(ratio.item(), 0.8), 1.2)
                unclipped_wins = ratio.item() * sample.advantage <= bounded * sample.advantage
                objective = ratio * sample.advantage if unclipped_wins else torch.tensor(bounded * sample.advantage)
            else:
                objective = logprob * sample.advantage
            mean = mean - objective / len(sample.completion_ids)
        total = total + mean / len(samples)
    total.backward()
    named = dict(model.named_parameters())
    return total.item(), torch.cat([named[name].grad.flatten() for name in named])


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_loss_and_gradient_equal_an_independent_float64_derivation(random_model: Path, loss_type: str) -> None:
    samples = [s for group in random_groups() for s in group]
    config = small_config(f"policy_gradient.loss_type={loss_type}")
    loss, gradient = gradients(load_policy(random_model, "cpu", "float32"), samples, config)
    expected_loss, expected = independent(random_model, samples, loss_type)
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    assert (gradient - expected).norm() / expected.norm() < 1e-5


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
@pytest.mark.parametrize("token_budget", [8, 50, 10_000])
def test_independent_of_micro_batches_and_packing(policy: Policy, loss_type: str, token_budget: int) -> None:
    samples = [s for group in random_groups() for s in group]
    base = small_config(f"policy_gradient.loss_type={loss_type}", "learner.token_budget=120")
    other = small_config(
        f"policy_gradient.loss_type={loss_type}", f"learner.token_budget={token_budget}", "learner.logprob_chunk=7"
    )
    loss, gradient = gradients(policy, samples, base)
    other_loss, other_gradient = gradients(policy, samples[::-1], other)
    assert other_loss == pytest.approx(loss, rel=1e-5)
    assert (gradient - other_gradient).norm() / gradient.norm() < 1e-5


def test_zero_advantage_is_left_out_without_changing_the_result(policy: Policy) -> None:
    samples = [s for group in random_groups() for s in group]
    config = small_config()
    micro = list(microbatches(samples, 10_000, policy.device))
    assert sum(len(m.lengths) for m in micro) == 9  # of 12
    # The nine alone, but averaged over twelve: what including three zeros gives.
    active = [s for s in samples if s.advantage]
    alone, _ = gradients(policy, active, config)
    assert gradients(policy, samples, config)[0] == pytest.approx(alone * 9 / 12, rel=1e-6)


def test_clip_acts_from_the_second_epoch_on(policy: Policy) -> None:
    groups = random_groups(8)
    config = small_config("policy_gradient.epochs_per_batch=2", "policy_gradient.minibatches=2")
    on_policy = [[_on_policy(policy, s, config) for s in group] for group in groups]
    optimizer = Optimizer(policy.named_parameters(), config.learner)
    stats = update_policy(policy, optimizer, on_policy, config, 0, 1e-2, lambda: None).metrics()
    assert stats["train/optimizer_steps"] == 4
    assert stats["train/clip_frac"] > 0
    assert stats["train/ratio_max"] > 1.2
    assert stats["sync/logprob_gap_max"] < 1e-4  # measured before the first optimizer step only


def test_nothing_to_learn_is_finite(policy: Policy) -> None:
    """All advantages zero: no forward pass, no step, and metrics without 0/0."""
    groups = [random_groups()[1]]
    config = small_config("policy_gradient.minibatches=1")
    before = {name: p.detach().clone() for name, p in policy.named_parameters()}
    optimizer = Optimizer(policy.named_parameters(), config.learner)
    metrics = update_policy(policy, optimizer, groups, config, 0, 1e-2, lambda: None).metrics()
    assert metrics["train/loss"] == 0.0
    assert metrics["train/grad_norm"] == 0.0
    assert all(torch.equal(before[name], p) for name, p in policy.named_parameters())


def _on_policy(policy: Policy, sample: Sample, config: Config) -> Sample:
    """The sample with the behaviour log-probabilities that `policy` gives now."""
    from dataclasses import replace

    active = replace(sample, advantage=1.0)
    micro = next(iter(microbatches([active], 10_000, policy.device)))
    with torch.no_grad():
        output, _ = forward(policy, micro, config)
    logprobs = output.log_ratio_N + micro.behaviour_logprobs_N
    return replace(sample, behaviour_logprobs=logprobs.numpy())
