"""Policy-gradient runs of the embedded model in one process, for comparisons of many short ones.

Preparation, advantages, losses and optimizer steps are the learner's; tokens are sampled by Hugging Face's model on one
thread, so a run depends on neither timing nor load: its staleness is exact, and seeds repeat it.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache

from cli import load_config
from grpo_gsm8k.data.prepare import ensure, load_split
from grpo_gsm8k.grading.scoring import ErrorKind
from grpo_gsm8k.learner.experience import prepare
from grpo_gsm8k.learner.rollout_batch import RolloutGroup, assemble
from grpo_gsm8k.learner.schedules import Decay, Rates, lr_scale
from grpo_gsm8k.learner.setup import open_models, open_optimizers
from grpo_gsm8k.learner.task import Task
from grpo_gsm8k.learner.update import update_policy
from grpo_gsm8k.models import EMBEDDED_TINY, stop_token_ids
from grpo_gsm8k.transport.protocol import Completion, VersionSpan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from grpo_gsm8k.config import Config
    from grpo_gsm8k.learner.task import GradedCompletion, Item

SAMPLED_AT_ONCE = 256  # sequences


@dataclass(frozen=True, slots=True)
class Run:
    """What one run is made of: words of the command line, seed, and how many updates old its samples are."""

    overrides: tuple[str, ...]
    seed: int
    lag: int = 0
    evaluated: int = 256  # problems of the validation set, and of the test set

    def config(self) -> Config:
        """Compose the configuration. Raises UserError for overrides that have no meaning."""
        words = ("command=policy_gradient", "preset=cpu_demo", "policy_gradient.active_sampling=0")
        return load_config([*words, *self.overrides, f"policy_gradient.max_staleness={self.lag}", f"seed={self.seed}"])


@dataclass(frozen=True, slots=True)
class Outcome:
    """Accuracies of greedy answers, 0 to 1, before (validation set) and after; means over the last five updates."""

    before: float
    validation: float
    test: float
    reward: float
    kl_behaviour: float  # nats per token: of the policy that sampled to the one that is trained
    masked: float  # fraction of the tokens that the correction left out
    seconds: float


def train(run: Run, artifacts: Path) -> Outcome:
    """Train and evaluate. The data set must have been prepared (`ensure`), if several processes train at once."""
    torch.set_num_threads(1)
    torch.manual_seed(run.seed)
    began = time.monotonic()
    config = run.config()
    pg = config.policy_gradient
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED_TINY)
    task = Task(tokenizer, config, stop_token_ids(EMBEDDED_TINY, tokenizer, config.prompt.chat))
    folder = ensure(config.data, artifacts)
    items, _ = task.training_items(load_split(folder, "train"))
    order = np.random.default_rng(run.seed).permutation(len(items))
    held_out = {split: task.items(load_split(folder, split))[0][: run.evaluated] for split in ("val", "test")}  # type: ignore[arg-type]
    models = open_models(config, EMBEDDED_TINY, EMBEDDED_TINY, None)
    optimizers = open_optimizers(models, config.learner)
    sampler = Sampler(task, pg.max_new_tokens)
    weights = deque([_weights(models.policy)], maxlen=run.lag + 1)
    sampler.load(weights[0])
    before = sampler.accuracy(held_out["val"])
    late: list[dict[str, float]] = []
    for version in range(pg.updates or 0):
        sampler.load(weights[0])  # the oldest: of `lag` updates ago, once there are that many
        first = version * pg.prompts_per_update
        chosen = [items[order[(first + i) % len(items)]] for i in range(pg.prompts_per_update)]
        sampled_by = max(0, version - run.lag)
        batch = assemble(sampler.groups(chosen, config, sampled_by, run.seed * 100_000 + version), config, version)
        scale = lr_scale(version, pg.updates or 0, config.learner.warmup_updates, Decay.of(config.learner))
        rates = Rates(config.learner.lr * scale, pg.critic.lr * scale, pg.kl.coef)
        experience = prepare(batch.samples, batch.trained_rewards_GN, models, config, pg.kl.coef, _ignore)
        stats = update_policy(models, optimizers, experience.groups, config, version, rates, _ignore)
        late.append({"reward": float(batch.rewards_GN.mean()), **stats.metrics()})
        weights.append(_weights(models.policy))
    sampler.load(weights[-1])
    means = {
        name: float(np.mean([values.get(name, 0.0) for values in late[-5:]]))
        for name in ("reward", "train/kl_behaviour", "train/correction_masked_frac")
    }
    validation, test = (sampler.accuracy(held_out[split]) for split in ("val", "test"))
    return Outcome(before, validation, test, *means.values(), time.monotonic() - began)


class Sampler:
    """Hugging Face's model with the weights that it is given, and the grades of what it samples."""

    def __init__(self, task: Task, limit: int) -> None:
        """`limit` is the largest number of tokens of a completion."""
        self._task, self._limit = task, limit
        self._model = AutoModelForCausalLM.from_pretrained(
            EMBEDDED_TINY, dtype=torch.float32, attn_implementation="sdpa"
        )

    def load(self, weights: dict[str, torch.Tensor]) -> None:
        """Take other weights."""
        self._model.load_state_dict(weights, strict=False)  # a tied head comes once

    def accuracy(self, items: Sequence[Item]) -> float:
        """Answer greedily; returns the fraction of right answers."""
        return float(np.mean([graded.kind is ErrorKind.CORRECT for (graded,) in self._graded(items, 1, 0, None)]))

    def groups(self, items: Sequence[Item], config: Config, version: int, seed: int) -> list[RolloutGroup]:
        """Sample a group of completions for every item."""
        generator = torch.Generator().manual_seed(seed)
        graded = self._graded(items, config.policy_gradient.group_size, version, generator)
        found = [RolloutGroup(0, item, group) for item, group in zip(items, graded, strict=True)]
        if config.policy_gradient.advantage_name != "greedy_baseline":
            return found
        baselines = self._graded(items, 1, version, None)
        return [replace(group, baseline=only) for group, (only,) in zip(found, baselines, strict=True)]

    def _graded(
        self, items: Sequence[Item], count: int, version: int, generator: torch.Generator | None
    ) -> list[tuple[GradedCompletion, ...]]:
        prompts = [item.prompt_ids for item in items for _ in range(count)]
        made: list[Completion] = []
        for start in range(0, len(prompts), SAMPLED_AT_ONCE):
            made += self._sample(prompts[start : start + SAMPLED_AT_ONCE], version, generator)
        futures = [self._task.start_grading(item, made[i * count : (i + 1) * count]) for i, item in enumerate(items)]
        return [future.result() for future in futures]

    @torch.no_grad()
    def _sample(
        self, prompts: Sequence[np.ndarray], version: int, generator: torch.Generator | None
    ) -> list[Completion]:
        """Complete S prompts of different lengths together, padded on the left; None: the most likely tokens."""
        longest = max(map(len, prompts))
        ids_SP = torch.tensor(np.stack([np.pad(ids, (longest - len(ids), 0)) for ids in prompts]), dtype=torch.long)
        mask_SP = torch.tensor([[0] * (longest - len(ids)) + [1] * len(ids) for ids in prompts])
        positions_SP = (mask_SP.cumsum(1) - 1).clamp(min=0)
        cache, ended_S = DynamicCache(), torch.zeros(len(prompts), dtype=torch.bool)
        stops = torch.tensor(self._task.stop_token_ids)
        tokens, logprobs = [], []
        for _ in range(self._limit):
            output = self._model(ids_SP, attention_mask=mask_SP, position_ids=positions_SP, past_key_values=cache)
            rows = torch.log_softmax(output.logits[:, -1].double(), dim=-1)
            if generator is None:
                ids_SP = rows.argmax(dim=-1, keepdim=True)
            else:
                ids_SP = torch.multinomial(rows.exp(), 1, generator=generator)
            tokens.append(ids_SP[:, 0])
            logprobs.append(rows.gather(1, ids_SP)[:, 0])
            ended_S |= torch.isin(ids_SP[:, 0], stops)
            if bool(ended_S.all()):
                break
            mask_SP = torch.cat([mask_SP, mask_SP.new_ones(len(prompts), 1)], dim=1)
            positions_SP = positions_SP[:, -1:] + 1
        rows_SR = zip(torch.stack(tokens, 1).numpy(), torch.stack(logprobs, 1).numpy(), strict=True)
        return [completion_of(ids, scores, self._task.stop_token_ids, version) for ids, scores in rows_SR]


def completion_of(ids: np.ndarray, logprobs: np.ndarray, stops: tuple[int, ...], version: int) -> Completion:
    """Return sampled tokens up to the first one that stops, with the version of the weights that sampled them."""
    at = np.flatnonzero(np.isin(ids, stops))
    end = int(at[0]) + 1 if len(at) else len(ids)
    spans = (VersionSpan(version, 0, end),)
    reason = "stop" if len(at) else "length"
    return Completion(ids[:end].astype(np.int32), logprobs[:end].astype(np.float32), reason, spans)


def _weights(policy: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in policy.merged_tensors()}


def _ignore() -> None:
    """Nobody waits for a sign of life."""
