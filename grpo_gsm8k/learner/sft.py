"""The loop of supervised fine-tuning."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from grpo_gsm8k.algorithms.logprobs import token_logprobs
from grpo_gsm8k.learner import session as training
from grpo_gsm8k.learner.batching import collate, pack, rollout_sample
from grpo_gsm8k.learner.oom import TokenBudget, with_halving
from grpo_gsm8k.learner.optimizer import lr_scale
from grpo_gsm8k.learner.rollouts import Plan
from grpo_gsm8k.learner.session import Session
from grpo_gsm8k.transport.protocol import PromptUse, StepDone

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from grpo_gsm8k.config import LearnerConfig
    from grpo_gsm8k.data.schedule import Use
    from grpo_gsm8k.data.tokens import Example
    from grpo_gsm8k.learner.batching import Sample
    from grpo_gsm8k.learner.model import Policy
    from grpo_gsm8k.learner.optimizer import Optimizer
    from grpo_gsm8k.learner.publisher import Published

# Published versions wait in /dev/shm for the engine, so learning waits for the oldest validation beyond this number.
MAX_PENDING_VALIDATIONS = 2
NO_PLAN = Plan(0, {})  # no prompts are ever under way


@dataclass(frozen=True)
class SftSession(Session):
    """A run that learns given responses: `plan[k]` says which of the `examples` update k takes."""

    examples: Sequence[Example]
    plan: Sequence[Sequence[Use]]


def train(session: SftSession) -> int:
    """Train until the last update, a stop request or the end of patience; returns the number of updates done."""
    config, client, validation = session.config, session.client, session.validation
    step = session.start
    client.lap("start", step)
    if step in session.unvalidated:
        announce(session, step)
    started = time.monotonic()
    while step < session.updates and not client.stop_requested and not out_of_patience(session):
        rate = learning_rate(session, step)
        samples = [as_sample(session.examples[index]) for _, index in session.plan[step]]
        stats = fine_tune(
            session.models.policy,
            session.optimizers.policy,
            samples,
            config.learner,
            rate,
            client.beat,
            session.token_budget,
        )
        client.lap("update", step)
        uses = tuple(PromptUse(epoch, session.examples[index].id) for epoch, index in session.plan[step])
        step += 1
        waited = 0.0
        if validation.due(step):
            validation.wait(at_most=MAX_PENDING_VALIDATIONS - 1)
            waited = client.lap("wait for validations", step)
        published = announce(session, step) if validation.due(step) else None
        validation.drain()
        ended = time.monotonic()
        metrics = stats.metrics(rate, ended - started) | session.token_budget.metrics
        metrics |= training.time_metrics(session, published, ended - started, waited)
        client.report(StepDone(step, metrics, uses))
        started = ended
        if training.is_save_due(session, step):
            save(session, step)
    if not client.stop_requested:
        validation.wait()
    save(session, step)
    training.prune(session)
    return step


def announce(session: SftSession, version: int) -> Published:
    """Publish the weights for their validation."""
    published = training.queue_weights(session, version, validate=True)
    session.client.flush()
    return published


def save(session: SftSession, version: int) -> None:
    """Write a checkpoint of `version`."""
    training.save(session, training.trainer_state(session, version, NO_PLAN, 0.0))


def learning_rate(session: SftSession, update: int) -> float:
    """The schedule's learning rate for update `update`, counted from 0."""
    sft = session.config.sft
    return sft.lr * lr_scale(update, session.updates, sft.warmup_updates, session.config.learner.final_lr_fraction)


def out_of_patience(session: SftSession) -> bool:
    """Whether the last `patience` validations all fell short of the best before them."""
    patience = session.config.sft.patience
    accuracy = [value for _, value in sorted(session.validation.accuracy.items())]
    if patience is None or len(accuracy) <= patience:
        return False
    return max(accuracy[-patience:]) <= max(accuracy[:-patience])


def as_sample(example: Example) -> Sample:
    """An example in the form in which micro-batches are packed."""
    unused = np.zeros(len(example.response_ids), dtype=np.float32)
    return rollout_sample(example.prompt_ids, example.response_ids, unused, unused.astype(bool))


@dataclass(frozen=True, slots=True)
class SftStats:
    """One optimizer step over `tokens` response tokens: sums over them in nats, and the gradient's norm."""

    tokens: int
    loss_sum: float
    entropy_sum: float
    greedy: int
    input_tokens: int
    grad_norm: float
    skipped: bool

    def metrics(self, lr: float, seconds: float) -> dict[str, float]:
        """Averages under their metric names. Throughput counts prompt and response tokens; there is no padding."""
        loss = self.loss_sum / self.tokens
        return {
            "train/loss": loss,
            "train/perplexity": math.exp(min(loss, 700.0)),
            "train/entropy": self.entropy_sum / self.tokens,
            "train/token_accuracy": self.greedy / self.tokens,
            "train/response_tokens": float(self.tokens),
            "train/tokens_per_s": self.input_tokens / seconds,
            "train/grad_norm": self.grad_norm,
            "train/skipped_steps": float(self.skipped),
            "train/optimizer_steps": float(not self.skipped),
            "train/lr": lr,
        }


def fine_tune(
    policy: Policy,
    optimizer: Optimizer,
    samples: Sequence[Sample],
    config: LearnerConfig,
    lr: float,
    beat: Callable[[], None],
    budget: TokenBudget | None = None,
) -> SftStats:
    """One optimizer step on the mean negative log-likelihood of all response tokens of `samples`.

    `budget`, by default that of `config`, is what a micro-batch may hold; it shrinks where memory runs out.
    """
    budget = budget or TokenBudget(config.token_budget)
    parameters = [p for _, p in policy.named_parameters()]
    stats = with_halving(budget, parameters, samples, partial(_passes, policy, samples, config.logprob_chunk, beat))
    step = optimizer.step(lr)
    return replace(stats, grad_norm=step.grad_norm, skipped=step.skipped)


def _passes(
    policy: Policy, samples: Sequence[Sample], logprob_chunk: int, beat: Callable[[], None], token_budget: int
) -> SftStats:
    """The forward and backward passes of one optimizer step, which accumulate its gradients."""
    tokens = sum(len(sample.completion_ids) for sample in samples)
    loss_sum = entropy_sum = 0.0
    greedy = 0
    for indices in pack(samples, token_budget):
        micro = collate([samples[i] for i in indices], [1 / tokens] * len(indices), policy.device)
        with policy.autocast():
            hidden_NH = policy.hidden_states(micro)[micro.source_N]
            scores = token_logprobs(hidden_NH, policy.head, micro.targets_N, 1.0, logprob_chunk)
        (-scores.logprobs_N * micro.weights_N).sum().backward()
        loss_sum -= float(scores.logprobs_N.detach().sum())
        entropy_sum += float(scores.entropy_N.detach().sum())
        greedy += int(scores.greedy_N.sum())
        beat()
    inputs = sum(len(sample.prompt_ids) + len(sample.completion_ids) for sample in samples)
    return SftStats(tokens, loss_sum, entropy_sum, greedy, inputs, grad_norm=0.0, skipped=False)
