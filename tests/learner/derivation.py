"""Every objective once more, from the papers: float64, Hugging Face's own attention, one sequence and token at a time.

Shares no code with the project. What a method needs beside the policy's own log-probabilities is plain lists of floats.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch


@dataclass
class Scalars:
    """Of one sequence, a float per token."""

    proximal: list[float]
    behaviour: list[float]
    reference: list[float]
    values: list[float]
    teacher: list[float] = field(default_factory=list)
    advantages: list[float] = field(default_factory=list)
    returns: list[float] = field(default_factory=list)
    selected: list[bool] = field(default_factory=list)


def forward(model: Any, prompt: list[int], completion: list[int], temperature: float) -> tuple[list, list, list]:
    """Log-probability, entropy and last hidden state for each completion token."""
    output = model(torch.tensor([prompt + completion]), output_hidden_states=True)
    logits, hidden = output.logits[0].double() / temperature, output.hidden_states[-1][0]
    logprobs, entropies, states = [], [], []
    for i, token in enumerate(completion):
        row = logits[len(prompt) + i - 1]
        normaliser = torch.log(torch.exp(row - row.max().detach()).sum()) + row.max().detach()
        probabilities = torch.exp(row - normaliser)
        logprobs.append(row[token] - normaliser)
        entropies.append(-(probabilities * (row - normaliser)).sum())
        states.append(hidden[len(prompt) + i - 1])
    return logprobs, entropies, states


def divergence(estimator: str, logprob: Any, reference: float) -> Any:
    if estimator == "k1":
        return logprob - reference
    if estimator == "k2":
        return (logprob - reference) ** 2 / 2
    log_r = reference - logprob
    return (torch.exp(log_r) if isinstance(log_r, torch.Tensor) else math.exp(log_r)) - 1 - log_r


def fill_advantages(groups: list[list[Scalars]], rewards: np.ndarray, pg: Any) -> None:
    """Advantages by the name of the method; with the KL taken off the reward where that is asked for."""
    in_reward = pg.kl.coef > 0 and pg.kl.place == "reward"

    def penalty(s: Scalars) -> list[float]:
        pairs = zip(s.proximal, s.reference, strict=True)
        return [pg.kl.coef * divergence(pg.kl.estimator, p, r) if in_reward else 0.0 for p, r in pairs]

    sequences = [s for group in groups for s in group]
    if pg.advantage_name == "distill":  # each token's own log ratio to the teacher, and the task's centered reward
        for group, row in zip(groups, rewards.tolist(), strict=True):
            for s, reward in zip(group, row, strict=True):
                task = pg.teacher.task_weight * (reward - sum(row) / len(row))
                pairs = zip(s.proximal, s.teacher, strict=True)
                s.advantages = [task - pg.teacher.kl_weight * (p - q) for p, q in pairs]
        return
    if pg.advantage_name in ("gae", "token_whitened"):
        lam = pg.critic.lam if pg.advantage_name == "gae" else 1.0
        lam_value = lam if pg.critic.lam_value is None else pg.critic.lam_value
        for s, reward in zip(sequences, rewards.flatten().tolist(), strict=True):
            per_token = [-k for k in penalty(s)]
            per_token[-1] += reward
            last = len(per_token)
            for t in range(last):  # the definition: a discounted sum of temporal differences
                total = for_value = 0.0
                for k in range(t, last):
                    following = s.values[k + 1] if k + 1 < last else 0.0
                    delta = per_token[k] + pg.critic.gamma * following - s.values[k]
                    total += (pg.critic.gamma * lam) ** (k - t) * delta
                    for_value += (pg.critic.gamma * lam_value) ** (k - t) * delta
                s.advantages.append(total)
                s.returns.append(for_value + s.values[t])
        everything = [a for s in sequences for a in s.advantages]
        mean = sum(everything) / len(everything)
        std = math.sqrt(sum((a - mean) ** 2 for a in everything) / len(everything))
        for s in sequences:
            s.advantages = [(a - mean) / (std + pg.advantage_eps) for a in s.advantages]
        return
    table = [[r - sum(penalty(s)) for s, r in zip(g, row, strict=True)] for g, row in zip(groups, rewards, strict=True)]
    flat = [r for row in table for r in row]
    untied = sum(max(row) > min(row) for row in table)
    centered = [r - sum(row) / len(row) for row in table for r in row]
    tokens = [c for c, s in zip(centered, sequences, strict=True) for _ in s.proximal]
    token_mean = sum(tokens) / len(tokens)
    token_std = math.sqrt(sum((c - token_mean) ** 2 for c in tokens) / len(tokens))
    for group, row in zip(groups, table, strict=True):
        mean = sum(row) / len(row)
        std = math.sqrt(sum((r - mean) ** 2 for r in row) / (len(row) - 1))
        lengths = [len(s.proximal) for s in group]
        longer = sum(r * n for r, n in zip(row, lengths, strict=True)) / sum(lengths)
        all_mean = sum(flat) / len(flat)
        all_std = math.sqrt(sum((r - all_mean) ** 2 for r in flat) / len(flat))
        for i, s in enumerate(group):
            others = [r for j, r in enumerate(row) if j != i]
            advantage = {
                "reward": row[i],
                "greedy_baseline": row[i],
                "group_mean": row[i] - mean,
                "group_mean_std": 0.0 if max(row) == min(row) else (row[i] - mean) / (std + pg.advantage_eps),
                "leave_one_out": row[i] - sum(others) / len(others),
                "batch_whitened": (row[i] - all_mean) / (all_std + pg.advantage_eps),
                "group_mean_whitened": (row[i] - mean - token_mean) / (token_std + pg.advantage_eps),
                "group_mean_rescaled": (row[i] - mean) * len(table) / untied,
                "length_weighted": row[i] - longer,
                "mean_normalized": (row[i] - mean) / (mean + pg.advantage_eps),
            }[pg.advantage_name]
            s.advantages = [advantage] * len(s.proximal)


def level(log_ratios: list, kind: str) -> list:
    """Log ratios of tokens, or that of the whole sequence for each of them."""
    if kind == "token":
        return log_ratios
    if kind == "geometric_mean_token":
        mean = sum(r.item() for r in log_ratios) / len(log_ratios)
        return [mean + r - r.item() for r in log_ratios]
    total = sum(log_ratios)
    return [total / len(log_ratios) if kind == "geometric_mean" else total] * len(log_ratios)


def select(sequences: list[Scalars], logprobs: list[list], pg: Any) -> None:
    """Mark the tokens that the loss treats differently, among those of all sequences."""
    tokens = [(s, t, lp.item()) for s, row in zip(sequences, logprobs, strict=True) for t, lp in enumerate(row)]
    for s in sequences:
        s.selected = [False] * len(s.proximal)
    if pg.loss_type == "m2po":
        drift = [(lp - s.proximal[t], s, t) for s, t, lp in tokens if (lp - s.proximal[t]) * s.advantages[t] > 0]
        drift.sort(key=lambda found: abs(found[0]))
        while drift and sum(d**2 for d, _, _ in drift) / len(drift) > pg.m2po.threshold:
            _, s, t = drift.pop()
            s.selected[t] = True
    if pg.loss_type in ("clip_cov", "kl_cov"):
        mean_a = sum(s.advantages[t] for s, t, _ in tokens) / len(tokens)
        mean_l = sum(lp for _, _, lp in tokens) / len(tokens)
        rows = [((s.advantages[t] - mean_a) * (lp - mean_l), s, t, lp) for s, t, lp in tokens]
        if pg.loss_type == "kl_cov":
            rows.sort(key=lambda found: -found[0])
            rows = rows[: int(pg.kl_cov.fraction * len(tokens))]
        else:  # with a fraction of 1 there is nothing random
            rows = [r for r in rows if pg.clip_cov.low < r[0] < pg.clip_cov.high and not clipped(r[1], r[2], r[3], pg)]
        for _, s, t, _ in rows:
            s.selected[t] = True


def clipped(s: Scalars, t: int, logprob: float, pg: Any) -> bool:
    """Whether PPO's clip leaves the token without a gradient."""
    r = math.exp(logprob - s.proximal[t])
    return r > 1 + pg.cliprange if s.advantages[t] > 0 else r < 1 - pg.cliprange and s.advantages[t] < 0


def accepted(s: Scalars, t: int, reject: Any) -> float:
    """1 for a token that no range rejects, else 0."""
    ratios = [math.exp(p - b) for p, b in zip(s.proximal, s.behaviour, strict=True)]
    found = {
        "token": [ratios[t]],
        "sequence": [math.prod(ratios)],
        "geometric_mean": [math.prod(ratios) ** (1 / len(ratios))],
        "outlier": ratios,
    }
    return float(all(low <= r <= high for name, (low, high) in reject.ranges.items() for r in found[name]))


def within_region(logprob: float, old: float, advantage: float, pg: Any) -> bool:
    """Whether DPPO lets a token contribute."""
    p, q = math.exp(logprob), math.exp(old)
    divergence = q * math.log(q / p) + (1 - q) * math.log((1 - q) / (1 - p))
    if pg.loss_type == "dppo_tv":
        divergence = abs(p - q)
    high = pg.cliprange if pg.cliprange_high is None else pg.cliprange_high
    return not (
        (advantage > 0 and p > q and divergence > high) or (advantage < 0 and p < q and divergence > pg.cliprange)
    )


def gmpo_ratio(logprobs: list, old: list[float], advantage: float, pg: Any) -> Any:
    """The geometric mean of clipped ratios."""
    high = pg.cliprange if pg.cliprange_high is None else pg.cliprange_high
    bounded = []
    for now, before in zip(logprobs, old, strict=True):
        r = torch.exp(now - before)
        limit = math.exp(high if advantage > 0 else -pg.cliprange)
        outside = r.item() > limit if advantage > 0 else r.item() < limit
        bounded.append(torch.tensor(limit, dtype=torch.float64) if outside else r)
    return torch.stack(bounded).prod() ** (1 / len(bounded))


def sequence_objective(s: Scalars, logprobs: list, entropies: list, values: list | None, pg: Any) -> list:
    """What is maximised for each token of one sequence, before any averaging."""
    exp = torch.exp
    ratios = [exp(r) for r in level([lp - old for lp, old in zip(logprobs, s.proximal, strict=True)], pg.ratio)]
    off = level([p - b for p, b in zip(s.proximal, s.behaviour, strict=True)], pg.off_policy.level)
    objective = []
    for t, logprob in enumerate(logprobs):
        a, r = s.advantages[t], ratios[t]
        low = -math.inf if pg.cliprange is None else 1 - pg.cliprange
        high_range = pg.cliprange_high if pg.cliprange_high is not None else pg.cliprange
        high = math.inf if high_range is None else 1 + high_range
        bounded = min(max(r.item(), low), high)
        if pg.loss_type in ("no_baseline", "reinforce_with_baseline"):
            gain = a * logprob
        elif pg.loss_type == "cispo":
            gain = bounded * a * logprob
        elif pg.loss_type == "m2po":
            gain = 0 * r if s.selected[t] else r * a
        elif pg.loss_type == "kl_cov":
            gain = r * a - (pg.kl_cov.coef * abs(logprob - s.proximal[t]) if s.selected[t] else 0)
        elif s.selected and s.selected[t]:
            gain = 0 * r
        elif pg.loss_type == "sapo":
            tau = pg.sapo.tau_pos if a > 0 else pg.sapo.tau_neg
            gain = a * 4 / tau / (1 + exp(-tau * (r - 1)))
        elif pg.loss_type.startswith("dppo"):
            gain = a * r.item() * logprob if within_region(logprob.item(), s.proximal[t], a, pg) else 0 * logprob
        elif pg.loss_type == "gmpo":
            gain = a * gmpo_ratio(logprobs, s.proximal, a, pg)
        elif pg.loss_type == "vespo":
            k, decay = (pg.vespo.k_pos, pg.vespo.lambda_pos) if a >= 0 else (pg.vespo.k_neg, pg.vespo.lambda_neg)
            whole = math.exp(sum(lp.item() - old for lp, old in zip(logprobs, s.proximal, strict=True)))
            gain = whole**k * math.exp(decay * (1 - whole)) * a * logprob
        else:
            gain = r * a if r.item() * a <= bounded * a else torch.tensor(bounded * a, dtype=torch.float64)
            if pg.dual_clip is not None and a < 0 and gain.item() < pg.dual_clip * a:
                gain = torch.tensor(pg.dual_clip * a, dtype=torch.float64)
        weight = math.exp(off[t])
        gain = (
            gain
            * {
                "none": 1.0,
                "importance": weight,
                "truncate": min(weight, pg.off_policy.high),
                "mask": float(pg.off_policy.low <= weight <= pg.off_policy.high),
                "masked_importance": weight if pg.off_policy.low <= weight <= pg.off_policy.high else 0.0,
            }[pg.off_policy.correction]
            * accepted(s, t, pg.off_policy.reject)
        )
        gain = gain + pg.entropy_coef * entropies[t]
        if pg.kl.coef and pg.kl.place == "loss":
            gain = gain - pg.kl.coef * divergence(pg.kl.estimator, logprob, s.reference[t])
        if values is not None:
            squared = (values[t] - s.returns[t]) ** 2
            if pg.critic.cliprange is not None:
                step = min(max(values[t].item() - s.values[t], -pg.critic.cliprange), pg.critic.cliprange)
                near = (s.values[t] + step - s.returns[t]) ** 2
                squared = squared if squared.item() >= near else torch.tensor(near, dtype=torch.float64)
            gain = gain - pg.critic.value_coef * squared / 2
        objective.append(gain)
    return objective


def reduce_loss(objectives: list[list], pg: Any) -> torch.Tensor:
    """Averages as the papers write them."""
    total = torch.zeros((), dtype=torch.float64)
    for objective in objectives:
        if pg.reduction == "sequence_mean":
            total = total + sum(objective) / len(objective) / len(objectives)
        elif pg.reduction == "token_mean":
            total = total + sum(objective) / sum(len(o) for o in objectives)
        elif pg.reduction == "sequence_sum":
            total = total + sum(objective) / len(objectives)
        else:
            total = total + sum(objective) / pg.max_new_tokens / len(objectives)
    return -total
