"""Updates of a learner of one or more ranks, real processes, with every gradient and all weights recorded."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from grpo_gsm8k.config import Config
from grpo_gsm8k.data.prepare import DataFolder
from grpo_gsm8k.learner import checkpoint, setup
from grpo_gsm8k.learner.batching import token_sequence
from grpo_gsm8k.learner.experience import experience_metrics
from grpo_gsm8k.learner.oom import TokenBudget
from grpo_gsm8k.learner.optimizer import Optimizer
from grpo_gsm8k.learner.policy_gradient import learn
from grpo_gsm8k.learner.rank_batch import share_sequences
from grpo_gsm8k.learner.rank_process import start_ranks
from grpo_gsm8k.learner.schedules import Rates
from grpo_gsm8k.learner.shards import is_shard
from grpo_gsm8k.learner.spec import LearnerSpec
from grpo_gsm8k.learner.tuning import tune
from grpo_gsm8k.models import EMBEDDED_TINY
from tests.learner.conftest import random_groups, random_rewards

Tensors = dict[str, torch.Tensor]
# Adam's first steps have the size of the rate wherever a gradient is not zero, also where it is mostly rounding. So
# weights differ by about this rate times the fraction of such gradients, and the next gradients in proportion.
LR = 1e-4
# Sums in float32 in another order: about 1e-7 of their terms each.
GRADIENTS = WEIGHTS = 1e-6
UPDATES = 3


@dataclass
class Recorded:
    """Gradients before each step of each optimizer, metrics of each update, weights at the end."""

    gradients: list[Tensors] = field(default_factory=list)
    metrics: list[dict[str, float]] = field(default_factory=list)
    weights: Tensors = field(default_factory=dict)
    tokens: list[int] = field(default_factory=list)  # the token budget after each update


def spec_of(config: Config, model: Path, folder: Path) -> LearnerSpec:
    """The start parameters of a learner whose files are in `folder`."""
    run, weights = folder / "run", folder / "weights"
    for made in (run / "logs", run / "checkpoints", weights):
        made.mkdir(parents=True, exist_ok=True)
    data = DataFolder(folder, 0, 0, 0)
    teacher = EMBEDDED_TINY if config.policy_gradient.advantage_name == "distill" else None
    return LearnerSpec(config, model, model, data, run, weights, 0, None, None, teacher)


@contextmanager
def opened(spec: LearnerSpec, resumed: Path | None = None) -> Iterator[Any]:
    """What a session has of its models and ranks; `resumed` is a checkpoint."""
    torch.manual_seed(spec.config.seed)
    ranks = start_ranks(spec, resumed)
    with closing(ranks):
        folders = (spec.model_folder, spec.critic_folder)
        models, optimizers = setup.open_trained(spec.config, *folders, resumed, ranks, spec.teacher_folder)
        if resumed:
            checkpoint.restore(resumed, models, optimizers)
        ranks.join(models.parameters)
        client = SimpleNamespace(beat=lambda: None, record_span=lambda name, version: 0.0)
        parts = {"models": models, "optimizers": optimizers, "ranks": ranks, "client": client}
        yield SimpleNamespace(config=spec.config, token_budget=TokenBudget(spec.config.learner.token_budget), **parts)


def train(session: Any, versions: range, groups: int = 6, size: int = 4) -> Recorded:
    """Do the updates of `versions` with rollouts that depend on the version alone."""
    found = Recorded()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Optimizer, "step", _recording(found.gradients, Optimizer.step))
        for version in versions:
            update = _fine_tuned if session.config.command == "sft" else _learned
            found.metrics.append(update(session, version, groups, size))
            found.tokens.append(session.token_budget.tokens)
    named = set(dict(session.models.policy.named_parameters()))
    found.weights = {n: t.clone() for n, t in session.models.policy.saved_tensors().items() if n in named}
    if session.models.critic is not None:
        found.weights |= {n: t.clone() for n, t in session.models.critic.saved_tensors().items()}
    return found


def _learned(session: Any, version: int, groups: int, size: int) -> dict[str, float]:
    rewards_GN = random_rewards(groups, size, seed=version)
    batch = SimpleNamespace(samples=random_groups(groups, size, seed=version), trained_rewards_GN=rewards_GN)
    rate = LR
    experience, stats = learn(session, batch, version, Rates(rate, rate, session.config.policy_gradient.kl.coef))  # type: ignore[arg-type]
    found = stats.metrics() | experience_metrics(experience, session.config)
    found.pop("time/teacher_s", None)
    return found


def _fine_tuned(session: Any, version: int, groups: int, size: int) -> dict[str, float]:
    # With a loss over pairs, the completions of a prompt are chosen and rejected in turns.
    samples = [s for group in random_groups(groups, size, seed=version) for s in group]
    sequences = [token_sequence(s.prompt_ids, s.completion_ids) for s in samples]
    share_sequences(session.ranks, sequences, version, LR)
    parts = (session.models, session.optimizers, sequences, session.config)
    stats = tune(*parts, LR, lambda: None, session.token_budget, session.ranks)
    return stats.metrics(LR, 1.0)


def _recording(found: list[Tensors], step: Any) -> Any:
    def recording(optimizer: Optimizer, *arguments: Any) -> Any:
        present = [(name, p) for name, p in optimizer._named if p.grad is not None and not is_shard(p)]
        found.append({name: p.grad.clone() for name, p in present if p.grad is not None})
        return step(optimizer, *arguments)

    return recording


def one_update(config: Config, model: Path, folder: Path) -> Recorded:
    """UPDATES updates of a new learner with as many ranks as configured."""
    with opened(spec_of(config, model, folder)) as session:
        return train(session, range(UPDATES))


def gradient_distances(found: Sequence[Tensors], expected: Sequence[Tensors]) -> list[float]:
    """Distance of each gradient to the expected one, of the tensors that were found.

    Rounding errors have the size of the terms of a sum, which nearly cancel in some steps (a critic's gradient of 0.04
    among others of 5). So a gradient's difference is compared with at least a tenth of its optimizer's median norm.
    """
    assert len(found) == len(expected) > 0
    norms: dict[str, list[float]] = {}
    for gradient in expected:
        norms.setdefault(min(gradient, default=""), []).append(norm_of(gradient))
    least = {name: 0.1 * statistics.median(values) for name, values in norms.items()}
    return [
        distance(left, {name: right[name] for name in left}, least[min(right, default="")])
        for left, right in zip(found, expected, strict=True)
    ]


def norm_of(tensors: Tensors) -> float:
    """Norm of all tensors together."""
    return sum(float(tensor.double().square().sum()) for tensor in tensors.values()) ** 0.5


def distance(left: Tensors, right: Tensors, least: float = 1e-300) -> float:
    """Norm of the difference over the norm of `right`, or over `least` if that is more; infinite if tensors differ."""
    if left.keys() != right.keys():
        return float("inf")
    names = sorted(left)
    if not names:  # a policy that waits for its critic
        return 0.0
    both = [torch.cat([tensors[name].double().flatten() for name in names]) for tensors in (left, right)]
    return float((both[0] - both[1]).norm() / both[1].norm().clamp_min(least))
