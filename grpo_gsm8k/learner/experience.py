"""Rollouts prepared for training: other policies' log-probabilities, values and advantages filled in."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from grpo_gsm8k.algorithms.advantages import ADVANTAGES, Scores, group_mean
from grpo_gsm8k.algorithms.distillation import distill, reverse_kl
from grpo_gsm8k.algorithms.gae import gae, whiten
from grpo_gsm8k.algorithms.kl import kl_estimate
from grpo_gsm8k.config import PER_TOKEN
from grpo_gsm8k.learner.forwards import forward_columns, policy_logprobs, unmasked
from grpo_gsm8k.learner.oom import TokenBudget
from grpo_gsm8k.learner.ranks import ALONE
from grpo_gsm8k.learner.teacher_scores import with_teacher

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from grpo_gsm8k.config import Config, PolicyGradientConfig
    from grpo_gsm8k.learner.batching import MicroBatch, Sample
    from grpo_gsm8k.learner.objective import Models
    from grpo_gsm8k.learner.ranks import Ranks

Groups = list[list["Sample"]]


@dataclass(frozen=True, slots=True)
class Experience:
    """G groups of N samples, ready to train on. `advantages_GN` holds the mean advantage of each completion.

    `teacher_s`: seconds for the log-probabilities of a teacher, None without one.
    """

    groups: Groups
    advantages_GN: np.ndarray
    teacher_s: float | None = None


def prepare(
    groups: Sequence[Sequence[Sample]],
    rewards_GN: np.ndarray,
    models: Models,
    config: Config,
    kl_coef: float,
    beat: Callable[[], None],
    budget: TokenBudget | None = None,
    ranks: Ranks = ALONE,
) -> Experience:
    """Fill in the columns that the method needs; `beat`, `budget` and `ranks` are as in `update_policy`.

    Forward passes leave out samples that cannot contribute a gradient, unless the advantages themselves depend on them.
    """
    budget = budget or TokenBudget(config.learner.token_budget)
    pg = config.policy_gradient
    kl_reward = pg.kl.coef > 0 and pg.kl.place == "reward"
    filled = [list(group) for group in groups]
    needs_columns = pg.advantage_name in ("gae", "distill") or kl_reward
    if needs_columns:
        filled = _with_forwards(filled, models, config, beat, budget, ranks, only_active=False)
    teacher_s = None
    if pg.advantage_name == "distill":
        filled, teacher_s = with_teacher(filled, models, config, beat, budget, ranks)
    filled = with_advantages(filled, rewards_GN, pg, kl_coef if kl_reward else 0.0)
    if not needs_columns:
        filled = _with_forwards(filled, models, config, beat, budget, ranks, only_active=True)
    means = [[float(s.advantages[s.mask].mean()) if s.predicted_tokens else 0.0 for s in group] for group in filled]
    return Experience(filled, np.array(means), teacher_s)


def with_advantages(groups: Groups, rewards_GN: np.ndarray, pg: PolicyGradientConfig, kl_coef: float) -> Groups:
    """Fill in the advantages (and returns) of every token; `kl_coef` > 0 subtracts the KL to the reference."""
    if pg.advantage_name == "distill":
        return _with_distillation(groups, rewards_GN, pg)
    kl_GN = [[kl_coef * _kl(s, pg) if kl_coef else np.zeros(s.predicted_tokens) for s in group] for group in groups]
    if pg.advantage_name in PER_TOKEN:
        return _with_token_advantages(groups, rewards_GN, kl_GN, pg)
    sums_GN = np.array([[kl.sum() for kl in row] for row in kl_GN])
    lengths_GN = np.array([[s.predicted_tokens for s in group] for group in groups])
    rewards_GN = np.asarray(rewards_GN, dtype=np.float64) - sums_GN
    advantages_GN = ADVANTAGES[pg.advantage_name](Scores(rewards_GN, lengths_GN, pg.advantage_eps, pg.pass_k))
    return [
        [
            replace(s, advantages=np.full(len(s.completion_ids), advantage, dtype=np.float32))
            for s, advantage in zip(group, advantages_N, strict=True)
        ]
        for group, advantages_N in zip(groups, advantages_GN, strict=True)
    ]


def _with_distillation(groups: Groups, rewards_GN: np.ndarray, pg: PolicyGradientConfig) -> Groups:
    """Fill in the advantages of distillation: of the policy that the tokens are weighed for, the proximal one."""
    lengths_GN = np.array([[s.predicted_tokens for s in group] for group in groups])
    scores = Scores(np.asarray(rewards_GN, dtype=np.float64), lengths_GN, pg.advantage_eps)
    task_GN = group_mean(scores) if pg.teacher.task_weight else np.zeros(lengths_GN.shape)
    weights = (pg.teacher.kl_weight, pg.teacher.task_weight)

    def advantages(s: Sample, task_advantage: float) -> np.ndarray:
        student_R, teacher_R = s.proximal_logprobs[s.mask], s.teacher_logprobs[s.mask]
        return unmasked(s, distill(student_R, teacher_R, task_advantage, *weights).astype(np.float32))

    return [
        [replace(s, advantages=advantages(s, float(task))) for s, task in zip(group, task_N, strict=True)]
        for group, task_N in zip(groups, task_GN, strict=True)
    ]


def _with_token_advantages(
    groups: Groups, rewards_GN: np.ndarray, kl_GN: list[list[np.ndarray]], pg: PolicyGradientConfig
) -> Groups:
    """Fill in advantages by GAE, whitened after the returns are computed.

    The reward is on the last predicted token, the KL penalty on every one. Tokens outside the mask are not steps of the
    episode: neither discounted nor bootstrapped from. Without a critic, GAE of values 0 with lambda 1 is the discounted
    sum of the rewards to come, as in REINFORCE++ (arXiv:2501.03262).
    """
    lam = pg.critic.lam if pg.advantage_name == "gae" else 1.0
    lam_value = lam if pg.critic.lam_value is None else pg.critic.lam_value
    samples = [s for group in groups for s in group]
    penalties = [kl for row in kl_GN for kl in row]
    advantages, returns = [], []
    for sample, reward, penalty in zip(samples, np.ravel(rewards_GN), penalties, strict=True):
        rewards_R = -penalty
        rewards_R[-1:] += reward  # a completion may have no predicted token
        values_R = sample.values[sample.mask]
        advantage_R, return_R = gae(rewards_R, values_R, pg.critic.gamma, lam)
        if lam_value != lam:  # decoupled GAE (VC-PPO, arXiv:2503.01491)
            _, return_R = gae(rewards_R, values_R, pg.critic.gamma, lam_value)
        advantages.append(advantage_R)
        returns.append(return_R.astype(np.float32))
    whitened = iter(zip(whiten(advantages, pg.advantage_eps), returns, strict=True))
    return [
        [
            replace(s, advantages=unmasked(s, a.astype(np.float32)), returns=unmasked(s, r))
            for s, (a, r) in zip(group, whitened, strict=False)
        ]
        for group in groups
    ]


def is_active(sample: Sample, pg: PolicyGradientConfig) -> bool:
    """Whether a sample can contribute a gradient."""
    always = pg.entropy_coef > 0 or (pg.kl.coef > 0 and pg.kl.place == "loss") or pg.critic.kind != "none"
    always = always or pg.loss_type == "kl_cov"  # it penalizes tokens whatever their advantage
    return sample.in_loss and (always or bool(sample.advantages[sample.mask].any()))


def _with_forwards(
    groups: Groups,
    models: Models,
    config: Config,
    beat: Callable[[], None],
    budget: TokenBudget,
    ranks: Ranks,
    only_active: bool,
) -> Groups:
    """Fill in log-probabilities of the proximal and reference policies, and values, as far as the method needs them."""
    names = _columns(models, config)
    if not names:
        return groups
    places = [(g, n) for g, group in enumerate(groups) for n, s in enumerate(group)]
    places = [(g, n) for g, n in places if groups[g][n].predicted_tokens]
    places = [(g, n) for g, n in places if not only_active or is_active(groups[g][n], config.policy_gradient)]
    samples = [groups[g][n] for g, n in places]

    def forward(micro: MicroBatch) -> dict[str, torch.Tensor]:
        return _forward(models, micro, config)

    columns = forward_columns(samples, names, forward, models.policy.device, beat, budget, ranks)
    for k, (g, n) in enumerate(places):
        filled: dict[str, Any] = {name: unmasked(samples[k], column[k]) for name, column in columns.items()}
        groups[g][n] = replace(groups[g][n], **filled)
    return groups


def _columns(models: Models, config: Config) -> list[str]:
    """Names of the columns of `Sample` that need forward passes."""
    pg = config.policy_gradient
    needed = {
        "proximal_logprobs": pg.off_policy.proximal == "recomputed",
        "values": models.critic is not None,
        "reference_logprobs": pg.needs_reference,
    }
    return [name for name, is_needed in needed.items() if is_needed]


@torch.no_grad()
def _forward(models: Models, micro: MicroBatch, config: Config) -> dict[str, torch.Tensor]:
    """Compute columns of `Sample` for the predicted tokens of one micro-batch, float32 [N] on the device."""
    pg = config.policy_gradient
    columns: dict[str, torch.Tensor] = {}
    shared_critic = models.critic is not None and models.critic.trunk is None
    if pg.off_policy.proximal == "recomputed" or shared_critic:
        logprobs_N, hidden_NH = policy_logprobs(models.policy, micro, config)
        if pg.off_policy.proximal == "recomputed":
            columns["proximal_logprobs"] = logprobs_N
    else:
        hidden_NH = torch.empty(0)  # a separate critic does not use it
    if models.critic is not None:
        columns["values"] = models.critic.values(hidden_NH, micro.tokens)
    if pg.needs_reference:
        base = contextlib.nullcontext() if models.reference is not None else models.policy.without_adapter()
        with base:
            columns["reference_logprobs"], _ = policy_logprobs(models.reference or models.policy, micro, config)
    return {name: values.float() for name, values in columns.items()}


def _kl(sample: Sample, pg: PolicyGradientConfig) -> np.ndarray:
    """Estimated KL to the reference per predicted token, float64."""
    policy = torch.from_numpy(sample.proximal_logprobs[sample.mask])
    reference = torch.from_numpy(sample.reference_logprobs[sample.mask])
    return kl_estimate(policy.double(), reference.double(), pg.kl.estimator).numpy()


def experience_metrics(experience: Experience, config: Config) -> dict[str, float]:
    """Metrics known before the update: spread of the advantages, and how well the critic explains the returns."""
    samples = [s for group in experience.groups for s in group]
    values = {"train/advantage_std": float(_tokens(samples, "advantages").std())}
    if experience.teacher_s is not None:
        student_N, teacher_N = _tokens(samples, "proximal_logprobs"), _tokens(samples, "teacher_logprobs")
        values["distill/reverse_kl"] = float(reverse_kl(student_N, teacher_N).mean())
        values["time/teacher_s"] = experience.teacher_s
    if config.policy_gradient.overlong == "mask":
        values["train/overlong_frac"] = float(np.mean([not s.in_loss and s.predicted_tokens > 0 for s in samples]))
    if config.policy_gradient.critic.kind != "none":
        returns = _tokens(samples, "returns").astype(np.float64)
        errors = returns - _tokens(samples, "values")
        values["train/return_mean"] = float(returns.mean())
        if returns.var() > 0:
            values["train/explained_variance"] = float(1 - errors.var() / returns.var())
    return values


def _tokens(samples: Sequence[Sample], column: str) -> np.ndarray:
    """One column over the predicted tokens of all samples."""
    values: np.ndarray = np.concatenate([getattr(s, column)[s.mask] for s in samples])
    return values
