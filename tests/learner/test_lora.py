"""LoRA and QLoRA: what is trained, what stays, and that merged and unmerged are one model."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from grpo_gsm8k.config import LearnerConfig
from grpo_gsm8k.errors import UserError
from grpo_gsm8k.learner import lora
from grpo_gsm8k.learner.batching import pack_tokens
from grpo_gsm8k.learner.experience import prepare
from grpo_gsm8k.learner.merging import write_merged
from grpo_gsm8k.learner.model import Policy, load_policy
from grpo_gsm8k.learner.objective import Models
from grpo_gsm8k.learner.optimizer import Optimizer
from grpo_gsm8k.learner.schedules import Rates
from grpo_gsm8k.learner.update import Optimizers, update_policy
from tests.learner.conftest import random_groups, random_rewards, small_config

RANK = 4


def config_of(*overrides: str) -> LearnerConfig:
    return small_config("learner=lora", f"learner.lora.rank={RANK}", *overrides).learner


def trained(policy: Policy, learner: LearnerConfig) -> Policy:
    """After one update with a large learning rate: adapters that do something."""
    config = small_config().model_copy(update={"learner": learner})
    optimizers = Optimizers(Optimizer(policy.named_parameters(), learner), None)
    models, rates = Models(policy, None, None), Rates(1e-2, 0.0, 0.0)
    for step in range(2):  # B is zero at first, so A learns from the second step on
        groups = prepare(random_groups(), random_rewards(), models, config, 0.0, lambda: None).groups
        update_policy(models, optimizers, groups, config, step, rates, lambda: None)
    return policy


def hidden_of(policy: Policy) -> torch.Tensor:
    samples = [s for group in random_groups() for s in group]
    tokens = pack_tokens(samples, policy.device)
    with policy.inference():
        return policy.hidden_states(tokens)


def logits_of(policy: Policy) -> torch.Tensor:
    return (hidden_of(policy) @ policy.head.weight_VH.T).detach()


@pytest.mark.parametrize("target", ["lm_head", "embed_tokens"])
def test_an_adapter_on_embeddings_or_head_is_refused(random_model: Path, target: str) -> None:
    with pytest.raises(UserError, match=rf"targets=\['q_proj', '{target}'\]: embeddings and the output head"):
        load_policy(random_model, config_of(f"learner.lora.targets=[q_proj,{target}]"))


@pytest.mark.parametrize("targets", ["[all-linear]", "[q_proj,v_proj]"])
def test_trainable_parameters_are_those_of_the_formula(random_model: Path, targets: str) -> None:
    policy = load_policy(random_model, config_of(f"learner.lora.targets={targets}"))
    plain = AutoModelForCausalLM.from_pretrained(random_model)
    wanted = ("q_proj", "v_proj") if "q_proj" in targets else ("_proj",)
    linears = [m for n, m in plain.named_modules() if isinstance(m, torch.nn.Linear) and n.endswith(wanted)]
    expected = sum(RANK * (m.in_features + m.out_features) for m in linears)
    assert sum(p.numel() for _, p in policy.named_parameters()) == expected


def test_the_base_stays_bit_for_bit_and_is_the_reference(random_model: Path) -> None:
    learner = config_of()
    policy = load_policy(random_model, learner)
    at_start = logits_of(policy)
    before = {n: p.detach().clone() for n, p in policy.model.named_parameters() if not p.requires_grad}
    trained(policy, learner)
    assert all(torch.equal(before[n], p) for n, p in policy.model.named_parameters() if not p.requires_grad)
    assert not torch.equal(logits_of(policy), at_start)
    with policy.without_adapter():
        assert torch.equal(logits_of(policy), at_start)


@pytest.mark.parametrize("rslora", ["false", "true"])
def test_merged_weights_are_the_adapted_model(random_model: Path, tmp_path: Path, rslora: str) -> None:
    learner = config_of(f"learner.lora.rslora={rslora}")
    policy = trained(load_policy(random_model, learner), learner)
    policy.model.save_pretrained(tmp_path / "adapter")
    (tmp_path / "merged").mkdir()
    write_merged(learner, random_model, tmp_path / "adapter", tmp_path / "merged")
    plain = load_policy(tmp_path / "merged", small_config().learner)
    assert (logits_of(plain) - logits_of(policy)).abs().max() < 1e-4
    base = load_policy(random_model, small_config().learner)
    assert (logits_of(base) - logits_of(policy)).abs().max() > 1e-2  # the adapter does something


def test_a_saved_adapter_goes_on_where_it_was(random_model: Path, tmp_path: Path) -> None:
    learner = config_of()
    policy = trained(load_policy(random_model, learner), learner)
    policy.model.save_pretrained(tmp_path)
    again = load_policy(random_model, learner, adapter=tmp_path)
    assert torch.equal(logits_of(again), logits_of(policy))
    assert {n for n, _ in again.named_parameters()} == {n for n, _ in policy.named_parameters()}


def test_what_is_published_is_small_and_float32(random_model: Path, tmp_path: Path) -> None:
    policy = load_policy(random_model, config_of())
    lora.save_adapter(policy.model, tmp_path)
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    assert sum(t.numel() for t in tensors.values()) == sum(p.numel() for _, p in policy.named_parameters())
    assert {t.dtype for t in tensors.values()} == {torch.float32}


def test_unknown_targets_are_refused(random_model: Path) -> None:
    with pytest.raises(UserError, match=r"learner\.lora\.targets"):
        load_policy(random_model, config_of("learner.lora.targets=[no_such_layer]"))


def test_four_bits(random_model: Path) -> None:
    """The base is in 4 bits, the adapter learns, and what is merged are the numbers the bits stand for."""
    learner = config_of("learner=qlora", "actor.lora=merged")
    policy = load_policy(random_model, learner)
    quantised = [p for _, p in policy.model.named_parameters() if hasattr(p, "quant_state")]
    assert quantised
    assert {p.dtype for p in quantised} == {torch.uint8}
    trained(policy, learner)
    merged = copy.deepcopy(load_policy(random_model, small_config().learner))
    merged.model.load_state_dict({n: t.float() for n, t in policy.merged_tensors()}, strict=False)
    assert (logits_of(merged) - logits_of(policy)).abs().mean() < 0.02 * logits_of(policy).abs().mean()


@pytest.mark.parametrize(
    ("switch", "tolerance"),
    [
        ("learner.gradient_checkpointing=true", 1e-6),
        ("learner.offload_optimizer=true", 1e-6),
        ("learner.optimizer=adamw_8bit", 0.2),
    ],
)
def test_switches_change_cost_not_learning(random_model: Path, switch: str, tolerance: float) -> None:
    def delta(*overrides: str) -> np.ndarray:
        learner = small_config(*overrides).learner
        policy = load_policy(random_model, learner)
        before = torch.cat([p.detach().flatten().clone() for _, p in policy.named_parameters()])
        trained(policy, learner)
        return (torch.cat([p.detach().flatten() for _, p in policy.named_parameters()]) - before).numpy()

    plain, switched = delta(), delta(switch)
    assert np.abs(switched - plain).mean() <= tolerance * np.abs(plain).mean()


@pytest.mark.parametrize("kind", ["adamw", "adamw_8bit"])
@pytest.mark.parametrize("offload", ["false", "true"])
def test_optimizer_state_survives(random_model: Path, kind: str, offload: str) -> None:
    """One more step from a restored state is the same step."""
    learner = small_config(f"learner.optimizer={kind}", f"learner.offload_optimizer={offload}").learner
    policy = load_policy(random_model, learner)
    optimizer = Optimizer(policy.named_parameters(), learner)

    def step(target: Policy, with_optimizer: Optimizer, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        for _, p in target.named_parameters():
            p.grad = torch.randn(p.shape, generator=generator) * 1e-2
        with_optimizer.step(1e-3)

    step(policy, optimizer, 1)
    again = load_policy(random_model, learner)
    again.model.load_state_dict(policy.model.state_dict())
    restored = Optimizer(again.named_parameters(), learner)
    restored.load_state_tensors({name: t.clone() for name, t in optimizer.state_tensors().items()})
    step(policy, optimizer, 2)
    step(again, restored, 2)
    assert all(
        torch.equal(a, b) for (_, a), (_, b) in zip(policy.named_parameters(), again.named_parameters(), strict=True)
    )
