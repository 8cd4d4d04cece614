"""A step of DPO on given pairs: gradient and loss of the whole batch in float64, by autograd, and what stays fixed."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import logsigmoid
from transformers import AutoModelForCausalLM

from grpo_gsm8k.config import Config
from grpo_gsm8k.data.tokens import Example
from grpo_gsm8k.learner.model import load_policy, load_reference
from grpo_gsm8k.learner.objective import Models
from grpo_gsm8k.learner.pair_update import tune_on_pairs
from grpo_gsm8k.learner.setup import open_optimizers
from grpo_gsm8k.learner.sft_session import as_sequences
from tests.learner import derivation
from tests.learner.conftest import small_config
from tests.learner.test_objective import noisy

# Settings of the other method, none of which may have an effect.
OTHERS = (
    *("policy_gradient=ppo", "policy_gradient.temperature=0.7", "policy_gradient.entropy_coef=0.3"),
    *("policy_gradient.off_policy.proximal=recomputed", "policy_gradient.kl.coef=0.2", "policy_gradient.target_kl=0.1"),
)


def random_pairs(count: int = 5) -> list[Example]:
    rng = np.random.default_rng(3)

    def ids(low: int, high: int) -> np.ndarray:
        return rng.integers(3, 90, int(rng.integers(low, high))).astype(np.int32)

    return [Example(str(i), ids(2, 15), ids(1, 20), rejected_ids=ids(1, 20)) for i in range(count)]


@dataclass
class Step:
    loss: float
    gradient: torch.Tensor
    values: dict[str, float]


def step(folder: Path, config: Config, pairs: list[Example]) -> tuple[Step, Models]:
    """Loss and gradient of one step at a learning rate of 0."""
    policy, reference = load_policy(folder, config.learner), load_reference(folder, config.learner)
    noisy(policy.model, seed=4)
    models = Models(policy, reference, None)
    found: dict[str, torch.Tensor] = {}
    for name, p in policy.named_parameters():
        p.register_post_accumulate_grad_hook(lambda p, name=name: found.__setitem__(name, p.grad.clone()))
    sequences = [s for pair in pairs for s in as_sequences(pair)]
    stats = tune_on_pairs(models, open_optimizers(models, config.learner), sequences, config, 0.0, lambda: None)
    values = stats.metrics(0.0, 1.0)
    gradient = torch.cat([found[name].flatten().double() for name, _ in policy.named_parameters()])
    return Step(values["train/loss"], gradient, values), models


@pytest.mark.parametrize("kind", ["sigmoid", "ipo"])
@pytest.mark.parametrize("others", [(), OTHERS])
def test_loss_and_gradient_are_those_of_the_formula(random_model: Path, kind: str, others: tuple[str, ...]) -> None:
    config = small_config("command=sft", "sft.loss=dpo", f"sft.dpo.loss={kind}", "sft.dpo.beta=0.3", *others)
    pairs = random_pairs()
    found, models = step(random_model, config, pairs)
    policy, reference = (_double(m.model) for m in (models.policy, models.reference) if m is not None)
    losses, margins = [], []
    for pair in pairs:
        scores = []
        for response in as_sequences(pair):
            ids = response.prompt_ids.tolist(), response.completion_ids.tolist()
            now, _, _ = derivation.forward(policy, *ids, 1.0)
            with torch.no_grad():
                before, _, _ = derivation.forward(reference, *ids, 1.0)
            scores.append(sum(now) - sum(before))
        h = scores[0] - scores[1]
        margins.append(h.item())
        losses.append(-logsigmoid(0.3 * h) if kind == "sigmoid" else (h - 1 / 0.6) ** 2)
    loss = torch.stack(losses).mean()
    loss.backward()  # type: ignore[no-untyped-call]
    named = dict(policy.named_parameters())
    expected = torch.cat([named[name].grad.flatten() for name, _ in models.policy.named_parameters()])
    assert found.loss == pytest.approx(loss.item(), rel=2e-5)
    assert (found.gradient - expected).norm() / expected.norm() < 5e-5
    assert found.values["train/pair_margin"] == pytest.approx(0.3 * np.mean(margins), rel=1e-4, abs=1e-6)
    assert found.values["train/pair_accuracy"] == np.mean([m > 0 for m in margins])
    assert found.values["train/response_tokens"] == sum(p.trained_tokens for p in pairs)


def test_micro_batches_change_nothing(random_model: Path) -> None:
    words = ("command=sft", "sft.loss=dpo")
    small, large = (
        step(random_model, small_config(*words, f"learner.token_budget={tokens}"), random_pairs())[0]
        for tokens in (8, 10_000)
    )
    assert small.loss == pytest.approx(large.loss, rel=1e-5)
    assert (small.gradient - large.gradient).norm() / large.gradient.norm() < 1e-5


def test_a_pair_of_equal_scores_costs_log_2(random_model: Path) -> None:
    """At the start policy and reference are the same."""
    config = small_config("command=sft", "sft.loss=dpo")
    policy = load_policy(random_model, config.learner)
    models = Models(policy, load_reference(random_model, config.learner), None)
    sequences = [s for pair in random_pairs() for s in as_sequences(pair)]
    stats = tune_on_pairs(models, open_optimizers(models, config.learner), sequences, config, 0.0, lambda: None)
    assert stats.metrics(0.0, 1.0)["train/loss"] == pytest.approx(np.log(2), rel=1e-5)


def _double(model: torch.nn.Module) -> torch.nn.Module:
    config = copy.deepcopy(model.config)  # type: ignore[arg-type]
    made = AutoModelForCausalLM.from_config(config, dtype=torch.float64, attn_implementation="eager")
    made.load_state_dict({name: tensor.double() for name, tensor in model.state_dict().items()})
    return made  # type: ignore[no-any-return]


def test_pairs_far_enough_apart_change_nothing(random_model: Path) -> None:
    """Their gradient underflows, so the step has no pass."""
    config = small_config("command=sft", "sft.loss=dpo", "sft.dpo.beta=1e6")
    pairs = random_pairs(1)
    policy, reference = load_policy(random_model, config.learner), load_reference(random_model, config.learner)
    noisy(policy.model, seed=4)
    models = Models(policy, reference, None)
    sequences = [s for pair in pairs for s in as_sequences(pair)]
    optimizers = open_optimizers(models, config.learner)
    values = tune_on_pairs(models, optimizers, sequences, config, 0.0, lambda: None).metrics(0.0, 1.0)
    if values["train/pair_margin"] < 0:
        values = tune_on_pairs(models, optimizers, sequences[::-1], config, 0.0, lambda: None).metrics(0.0, 1.0)
    assert values["train/pair_margin"] > 1000
    assert values["train/loss"] == values["train/grad_norm"] == 0
    assert "train/entropy" not in values
