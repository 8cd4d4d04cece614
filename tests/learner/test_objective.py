"""Every method's loss and gradient, through preparation, packing and micro-batches, against `derivation`."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from grpo_gsm8k.config import Config
from grpo_gsm8k.learner.critic import build_critic
from grpo_gsm8k.learner.experience import prepare
from grpo_gsm8k.learner.model import load_policy, load_reference
from grpo_gsm8k.learner.objective import Models, objective
from grpo_gsm8k.learner.oom import TokenBudget
from grpo_gsm8k.learner.token_selection import with_selection
from grpo_gsm8k.learner.update import microbatches
from tests.learner import derivation
from tests.learner.conftest import random_groups, random_rewards, small_config

METHODS = {
    "reinforce": ["policy_gradient=reinforce"],
    "reinforce_baseline": ["policy_gradient=reinforce_baseline"],
    "grpo": ["policy_gradient=grpo"],
    "dr_grpo": ["policy_gradient=dr_grpo"],
    "dapo": ["policy_gradient=dapo"],
    "rloo": ["policy_gradient=rloo"],
    "gspo": ["policy_gradient=gspo"],
    "cispo": ["policy_gradient=cispo", "policy_gradient.cliprange_high=0.05"],
    "sapo": ["policy_gradient=sapo"],
    "dppo_tv": ["policy_gradient=dppo_tv", "policy_gradient.cliprange=2e-4"],
    "dppo_kl": ["policy_gradient=dppo_kl", "policy_gradient.cliprange=2e-5"],
    "gmpo": ["policy_gradient=gmpo", "policy_gradient.cliprange=0.05"],
    "vespo": ["policy_gradient=vespo"],
    "luspo": ["policy_gradient=luspo"],
    "gspo_token": ["policy_gradient=gspo_token", "policy_gradient.critic.lam=0.95"],
    "m2po": ["policy_gradient=m2po", "policy_gradient.m2po.threshold=0.004"],
    "clip_cov": [
        "policy_gradient=clip_cov",
        "policy_gradient.clip_cov.fraction=1.0",
        "policy_gradient.clip_cov.low=0.01",
        "policy_gradient.clip_cov.high=0.3",
        "policy_gradient.cliprange=0.1",
    ],
    "kl_cov": ["policy_gradient=kl_cov", "policy_gradient.kl_cov.fraction=0.2", "policy_gradient.kl_cov.coef=0.5"],
    "gpg": ["policy_gradient=gpg"],
    "opo": ["policy_gradient=opo"],
    "maxrl": ["policy_gradient=maxrl"],
    "remax": ["policy_gradient=remax"],
    "reinforce_plus_plus": ["policy_gradient=reinforce_plus_plus", "policy_gradient.critic.gamma=0.9"],
    "reinforce_plus_plus_baseline": ["policy_gradient=reinforce_plus_plus_baseline"],
    "positive_only": ["policy_gradient=positive_only"],
    "ppo": ["policy_gradient=ppo", "policy_gradient.critic.lam=0.95"],
    "distill": ["policy_gradient=distill", "policy_gradient.temperature=0.8"],
    "distill_mixed": [
        "policy_gradient=distill",
        "policy_gradient.teacher.kl_weight=0.7",
        "policy_gradient.teacher.task_weight=0.4",
        "policy_gradient.off_policy.proximal=recomputed",
        "policy_gradient.off_policy.correction=truncate",
    ],
    "distill_and_reference": [
        "policy_gradient=distill",
        "policy_gradient.kl.coef=0.3",
        "policy_gradient.cliprange=0.05",
        "policy_gradient.reduction=sequence_mean",
    ],
    "ppo_shared": ["policy_gradient=ppo", "policy_gradient.critic.kind=shared", "policy_gradient.critic.lam=0.95"],
    "ppo_two_lambdas": [
        "policy_gradient=ppo",
        "policy_gradient.critic.lam=0.8",
        "policy_gradient.critic.lam_value=0.97",
    ],
    "ppo_kl_reward": [
        "policy_gradient=ppo",
        "policy_gradient.kl.coef=0.3",
        "policy_gradient.kl.place=reward",
        "policy_gradient.kl.estimator=k1",
        "policy_gradient.critic.gamma=0.9",
        "policy_gradient.critic.lam=0.8",
        "policy_gradient.critic.cliprange=null",
    ],
    "whitened_kl_reward": [
        "policy_gradient.advantage=batch_whitened",
        "policy_gradient.kl.coef=0.3",
        "policy_gradient.kl.place=reward",
        "policy_gradient.kl.estimator=k2",
        "policy_gradient.off_policy.proximal=recomputed",
    ],
    "reinforce_plus_plus_kl": [
        "policy_gradient=reinforce_plus_plus",
        "policy_gradient.kl.coef=0.3",
        "policy_gradient.kl.place=reward",
        "policy_gradient.kl.estimator=k1",
    ],
    "kl_k2": ["policy_gradient.kl.coef=0.3", "policy_gradient.kl.estimator=k2"],
    "kl_k3": ["policy_gradient.kl.coef=0.3", "policy_gradient.kl.estimator=k3"],
    "entropy": ["policy_gradient.entropy_coef=0.2"],
    "dual_clip": ["policy_gradient.dual_clip=1.1"],
    "no_clip": ["policy_gradient.cliprange=null"],
    "sequence_ratio": ["policy_gradient.ratio=sequence"],
    "decoupled": [
        "policy_gradient.off_policy.proximal=recomputed",
        "policy_gradient.off_policy.correction=importance",
    ],
    **{
        f"preset_{name}": [f"policy_gradient/off_policy={name}"]
        for name in ("tis", "mis", "icepop", "geo_rs_tis", "decoupled")
    },
    "reject_all": [
        "policy_gradient/off_policy=tis",
        "policy_gradient.off_policy.high=1.1",
        "policy_gradient.off_policy.reject.token=[0.92,1.1]",
        "policy_gradient.off_policy.reject.sequence=[0.75,1.35]",
        "policy_gradient.off_policy.reject.geometric_mean=[0.96,1.03]",
        "policy_gradient.off_policy.reject.outlier=[0.85,1.14]",
    ],
    "reject_alone": [
        "policy_gradient.off_policy.proximal=recomputed",
        "policy_gradient.off_policy.reject.outlier=[0.85,1.15]",
    ],
    **{
        f"{kind}_{level}": [
            "policy_gradient.off_policy.proximal=recomputed",
            f"policy_gradient.off_policy.correction={kind}",
            f"policy_gradient.off_policy.level={level}",
            f"policy_gradient.off_policy.low={0.8 if level == 'sequence' else 0.95}",
            f"policy_gradient.off_policy.high={1.3 if level == 'sequence' else 1.05}",
        ]
        for kind in ("truncate", "mask", "masked_importance")
        for level in ("token", "sequence", "geometric_mean")
    },
}


def noisy(model: torch.nn.Module, seed: int, scale: float = 0.02) -> None:
    """Weights a little elsewhere, as they are after some optimizer steps."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))


class Scene:
    """Policy before and after some steps, reference, critic, and rollouts of a slightly different behavior policy.

    With `tools`, about a third of the completion tokens are not the policy's own but a tool's output.
    """

    def __init__(self, folder: Path, config: Config, tools: bool = False) -> None:
        self.config = config
        self.tools = tools
        policy = load_policy(folder, config.learner)
        reference = load_reference(folder, config.learner)
        noisy(reference.model, seed=3)
        teacher = None
        if config.policy_gradient.advantage_name == "distill":
            teacher = load_reference(folder, config.learner)
            noisy(teacher.model, seed=8)
        critic = build_critic(config, policy, folder)
        if critic is not None:
            torch.manual_seed(5)
            torch.nn.init.normal_(critic.head.weight, std=0.3)
            torch.nn.init.constant_(critic.head.bias, 0.2)
        self.models = Models(policy, reference if config.policy_gradient.needs_reference else None, critic, teacher)
        self.rewards = random_rewards()
        before = self.double(policy.model)
        rng = np.random.default_rng(7)
        self.groups = [[self._behaved(s, before, rng) for s in group] for group in random_groups()]
        experience = prepare(self.groups, self.rewards, self.models, config, config.policy_gradient.kl.coef, _no_beat)
        self.samples = [s for group in experience.groups for s in group]
        self.before, self.reference = before, self.double(reference.model)
        self.teacher = None if teacher is None else self.double(teacher.model)
        self.critic_before = None if critic is None or critic.trunk is None else self.double(critic.trunk.model)
        noisy(policy.model, seed=4, scale=0.005)
        if critic is not None and critic.trunk is not None:
            noisy(critic.trunk.model, seed=6, scale=0.005)
        self.samples = with_selection(policy, self.samples, config, (0,), _no_beat, TokenBudget(60))

    def double(self, model: Any) -> Any:
        config = copy.deepcopy(model.config)  # else the policy's own attention would become eager
        made = AutoModelForCausalLM.from_config(config, dtype=torch.float64, attn_implementation="eager")
        made.load_state_dict({name: tensor.double() for name, tensor in model.state_dict().items()})
        return made

    def _behaved(self, sample: Any, model: Any, rng: np.random.Generator) -> Any:
        with torch.no_grad():
            logprobs, _, _ = derivation.forward(model, sample.prompt_ids.tolist(), sample.completion_ids.tolist(), 1.0)
        noise = 0.1 * rng.normal(size=len(logprobs))
        behaviour = (np.array([float(lp) for lp in logprobs]) + noise).astype(np.float32)
        mask = sample.mask
        if self.tools:
            mask = rng.random(len(mask)) > 0.33
            mask[rng.integers(len(mask))] = True
        return replace(sample, behaviour_logprobs=behaviour, proximal_logprobs=behaviour, mask=mask)

    def parameters(self) -> list[torch.nn.Parameter]:
        critic = [] if self.models.critic is None else [p for _, p in self.models.critic.named_parameters()]
        return [p for _, p in self.models.policy.named_parameters()] + critic

    def ours(self, *overrides: str) -> tuple[float, torch.Tensor]:
        """Loss and flat gradient, by the project's code."""
        config = small_config(*overrides) if overrides else self.config
        loss = 0.0
        for parameter in self.parameters():
            parameter.grad = None
        for micro in microbatches(self.samples, config, self.models.policy.device):
            output = objective(self.models, micro, config, config.policy_gradient.kl.coef)
            output.loss.backward()
            loss += output.loss.item()
        return loss, torch.cat([_grad(p).flatten().double() for p in self.parameters()])

    def derived(self) -> tuple[float, torch.Tensor]:
        """The same by the derivation."""
        pg, critic = self.config.policy_gradient, self.models.critic
        policy = self.double(self.models.policy.model)
        trunk = None if critic is None or critic.trunk is None else self.double(critic.trunk.model)
        head = None
        if critic is not None:
            head = [critic.head.weight.detach().double()[0], critic.head.bias.detach().double()]
            head = [h.requires_grad_() for h in head]
        scalars = [[self._scalars(s, head) for s in group] for group in self.groups]
        derivation.fill_advantages(scalars, self.rewards, pg)
        flat = [s for group in scalars for s in group]
        forwards = [
            own(s, derivation.forward(policy, s.prompt_ids.tolist(), s.completion_ids.tolist(), pg.temperature))
            for s in self.samples
        ]
        derivation.select(flat, [logprobs for logprobs, _, _ in forwards], pg)
        objectives = []
        for sample, s, (logprobs, entropies, states) in zip(self.samples, flat, forwards, strict=True):
            prompt, completion = sample.prompt_ids.tolist(), sample.completion_ids.tolist()
            values = None
            if head is not None:
                if trunk is not None:
                    _, _, states = own(sample, derivation.forward(trunk, prompt, completion, 1.0))
                values = [state @ head[0] + head[1][0] for state in states]
            objectives.append(derivation.sequence_objective(s, logprobs, entropies, values, pg))
        loss = derivation.reduce_loss(objectives, pg)
        loss.backward()
        leaves = [dict(policy.named_parameters())[name] for name, _ in self.models.policy.named_parameters()]
        if trunk is not None and critic is not None and critic.trunk is not None:
            leaves += [dict(trunk.base_model.named_parameters())[n] for n, _ in critic.trunk.trunk_parameters()]
        return loss.item(), torch.cat([_grad(p).flatten() for p in [*leaves, *(head or [])]])

    def _scalars(self, sample: Any, head: list[torch.Tensor] | None) -> derivation.Scalars:
        pg, prompt, completion = self.config.policy_gradient, sample.prompt_ids.tolist(), sample.completion_ids.tolist()
        with torch.no_grad():
            before, _, states = own(sample, derivation.forward(self.before, prompt, completion, pg.temperature))
            reference, _, _ = own(sample, derivation.forward(self.reference, prompt, completion, pg.temperature))
            if self.critic_before is not None:
                _, _, states = own(sample, derivation.forward(self.critic_before, prompt, completion, 1.0))
            values = [0.0 if head is None else float(state @ head[0] + head[1][0]) for state in states]
        behaviour = sample.behaviour_logprobs[sample.mask].astype(float).tolist()
        proximal = [float(lp) for lp in before] if pg.off_policy.proximal == "recomputed" else behaviour
        teacher: list[float] = []
        if self.teacher is not None:
            with torch.no_grad():
                scored, _, _ = own(sample, derivation.forward(self.teacher, prompt, completion, pg.temperature))
            teacher = [float(lp) for lp in scored]
        return derivation.Scalars(proximal, behaviour, [float(lp) for lp in reference], values, teacher)


def own(sample: Any, columns: tuple[list, ...]) -> tuple[list, ...]:
    """The entries of the tokens that the policy wrote itself."""
    return tuple([value for value, kept in zip(column, sample.mask, strict=True) if kept] for column in columns)


def _grad(tensor: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(tensor) if tensor.grad is None else tensor.grad


def _no_beat() -> None:
    pass


NAMED = [name for name in METHODS if METHODS[name][0].startswith("policy_gradient=")]
OTHERS = [pytest.param(name, marks=pytest.mark.slow) for name in METHODS if name not in NAMED]


@pytest.mark.parametrize("method", [*NAMED, *OTHERS])
def test_loss_and_gradient_equal_the_derivation(random_model: Path, method: str) -> None:
    scene = Scene(random_model, small_config(*METHODS[method]))
    loss, gradient = scene.ours()
    derived_loss, derived = scene.derived()
    assert loss == pytest.approx(derived_loss, rel=2e-5, abs=2e-6)
    assert (gradient - derived).norm() / derived.norm() < 5e-5


@pytest.mark.parametrize("method", ["ppo", "entropy", "kl_k3", "decoupled"])
def test_the_policy_loss_is_the_derived_loss_without_the_other_terms(random_model: Path, method: str) -> None:
    scene = Scene(random_model, small_config(*METHODS[method]))
    outputs = [
        objective(scene.models, micro, scene.config, scene.config.policy_gradient.kl.coef)
        for micro in microbatches(scene.samples, scene.config, scene.models.policy.device)
    ]
    whole, part = sum(float(o.loss.detach()) for o in outputs), sum(float(o.policy_loss) for o in outputs)
    pg = scene.config.policy_gradient
    off = {
        "entropy_coef": 0.0,
        "kl": pg.kl.model_copy(update={"coef": 0.0}),
        "critic": pg.critic.model_copy(update={"value_coef": 0.0}),
    }
    scene.config = scene.config.model_copy(update={"policy_gradient": pg.model_copy(update=off)})
    assert part == pytest.approx(scene.derived()[0], rel=2e-5, abs=2e-6)
    assert (part == pytest.approx(whole)) == (method == "decoupled")


@pytest.mark.slow
def test_the_k1_term_equals_the_derivation_though_the_configuration_refuses_it(random_model: Path) -> None:
    """Its gradient is zero in expectation, not on a sample: the term itself is right."""
    config = small_config("policy_gradient.kl.coef=0.3")
    kl = config.policy_gradient.kl.model_copy(update={"estimator": "k1"})
    pg = config.policy_gradient.model_copy(update={"kl": kl})
    scene = Scene(random_model, config.model_copy(update={"policy_gradient": pg}))
    loss, gradient = scene.ours()
    derived_loss, derived = scene.derived()
    assert loss == pytest.approx(derived_loss, rel=2e-5, abs=2e-6)
    assert (gradient - derived).norm() / derived.norm() < 5e-5


@pytest.mark.parametrize(
    "method",
    [
        *("distill", "distill_mixed", "distill_and_reference"),
        *("grpo", "dapo", "gspo", "ppo_shared", "ppo_kl_reward", "whitened_kl_reward", "mask_geometric_mean"),
        *(
            "gmpo",
            "vespo",
            "luspo",
            "gspo_token",
            "m2po",
            "kl_cov",
            "opo",
            "reinforce_plus_plus_baseline",
            "reject_all",
        ),
    ],
)
def test_tokens_outside_the_mask_are_context_only(random_model: Path, method: str) -> None:
    """They are attended to, but in no log-probability, ratio, advantage, value or denominator."""
    scene = Scene(random_model, small_config(*METHODS[method]), tools=True)
    assert not all(sample.mask.all() for sample in scene.samples)
    loss, gradient = scene.ours()
    derived_loss, derived = scene.derived()
    assert loss == pytest.approx(derived_loss, rel=2e-5, abs=2e-6)
    assert (gradient - derived).norm() / derived.norm() < 5e-5


@pytest.mark.slow
@pytest.mark.parametrize(
    "method", ["grpo", "gspo", "ppo", "dapo", "kl_k3", "mask_sequence", "gmpo", "vespo", "reject_all", "gspo_token"]
)
@pytest.mark.parametrize("token_budget", [8, 60, 10_000])
def test_independent_of_micro_batches_and_packing(random_model: Path, method: str, token_budget: int) -> None:
    scene = Scene(random_model, small_config(*METHODS[method], "learner.token_budget=120"))
    loss, gradient = scene.ours()
    scene.samples = scene.samples[::-1]
    other_loss, other = scene.ours(*METHODS[method], f"learner.token_budget={token_budget}", "learner.logprob_chunk=7")
    assert other_loss == pytest.approx(loss, rel=1e-5, abs=1e-7)
    assert (gradient - other).norm() / gradient.norm() < 1e-5


@pytest.mark.parametrize("method", ["grpo", "dapo", "gspo", "cispo", "ppo", "dual_clip", "truncate_token"])
def test_clips_are_inert_where_the_policy_has_not_moved(random_model: Path, method: str) -> None:
    """At a ratio of 1 nothing is clipped and the gradient is that of plain REINFORCE with the same advantages."""
    scene = Scene(random_model, small_config(*METHODS[method]))
    policy = scene.models.policy
    current = prepare(scene.groups, scene.rewards, Models(policy, None, None), small_config(*RECOMPUTED), 0.0, _no_beat)
    at_once = [s.proximal_logprobs for group in current.groups for s in group]
    scene.samples = [
        replace(s, proximal_logprobs=now, behaviour_logprobs=now) for s, now in zip(scene.samples, at_once, strict=True)
    ]
    scene.models = Models(policy, None, None)
    _, gradient = scene.ours()
    config = scene.config
    plain = config.model_copy(
        update={"policy_gradient": config.policy_gradient.model_copy(update={"loss_type": "no_baseline"})}
    )
    scene.config = plain
    _, expected = scene.ours()
    assert (gradient - expected).norm() / expected.norm() < 1e-5


RECOMPUTED = ["policy_gradient.off_policy.proximal=recomputed", "policy_gradient.entropy_coef=1.0"]
