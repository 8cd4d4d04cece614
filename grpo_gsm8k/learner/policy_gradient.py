"""The policy-gradient loop."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from grpo_gsm8k.learner import checkpoint, rollout_files, update_record
from grpo_gsm8k.learner import session as training
from grpo_gsm8k.learner.experience import Experience, experience_metrics, prepare
from grpo_gsm8k.learner.optimizer import lr_scale
from grpo_gsm8k.learner.rollouts import Batch, assemble, rollout_metrics
from grpo_gsm8k.learner.session import Session
from grpo_gsm8k.learner.update import Rates, update_policy
from grpo_gsm8k.transport.protocol import StepDone

if TYPE_CHECKING:
    from grpo_gsm8k.learner.publisher import Published
    from grpo_gsm8k.learner.rollouts import Rollouts
    from grpo_gsm8k.learner.schedules import KlController
    from grpo_gsm8k.learner.update_stats import UpdateStats


@dataclass(frozen=True)
class PolicyGradientSession(Session):
    """A run that learns from its own completions."""

    kl: KlController
    rollouts: Rollouts


def train(session: PolicyGradientSession) -> int:
    """Train until the last update or a stop request; returns the number of updates done.

    `version` counts policy updates: batch `version` is trained by weights `version` and makes weights `version + 1`.
    """
    pg, client = session.config.policy_gradient, session.client
    version = session.start
    client.lap("start", version)
    published = announce(session, version, validate=version in session.unvalidated)
    client.wait_until_live()  # the engine's start-up is no part of the first step
    client.lap("wait for the engine", version)
    started = time.monotonic()
    while version < pg.updates:
        groups = session.rollouts.take(version)
        if groups is None:
            break
        waited = client.lap("wait for rollouts", version)
        batch = assemble(groups, session.config, version)
        rates = learning_rates(session, version)
        record_inputs(session, batch, version)
        experience, stats = learn(session, batch, version, rates)
        record_result(session, version, rates, stats)
        metrics = {**update_metrics(session, batch, experience, stats, version), **rates.metrics()}
        uses = session.rollouts.uses(version)
        version += 1
        published = announce(session, version, validate=session.validation.due(version))
        session.validation.drain()
        rollout_files.write_rollouts(
            session.run_folder / "rollouts" / f"step_{version}.parquet", batch, experience.advantages_GN
        )
        ended = time.monotonic()
        metrics |= training.time_metrics(session, published, ended - started, waited)
        metrics["rollout/tokens_per_s"] = metrics["rollout/tokens"] / (ended - started)
        client.report(StepDone(version, metrics, uses))
        client.lap("records", version)
        started = ended
        if training.is_save_due(session, version) or client.stop_requested:
            training.save(session, trainer_state(session, version))
        if client.stop_requested:
            break
    else:
        session.validation.wait()
        training.prune(session)
        return version
    training.save(session, trainer_state(session, version))
    return version


def learn(session: PolicyGradientSession, batch: Batch, version: int, rates: Rates) -> tuple[Experience, UpdateStats]:
    """One policy update: what it trains on, and how that went."""
    models, config, budget, client = session.models, session.config, session.token_budget, session.client
    experience = prepare(batch.samples, batch.rewards_GN, models, config, rates.kl_coef, client.beat, budget)
    client.lap("prepare", version)
    stats = update_policy(models, session.optimizers, experience.groups, config, version, rates, client.beat, budget)
    client.lap("update", version)
    return experience, stats


def announce(session: PolicyGradientSession, version: int, validate: bool) -> Published:
    """Publish the weights, and send them with everything that may now be generated as one bundle."""
    published = training.queue_weights(session, version, validate)
    session.rollouts.request_until(version)
    session.client.flush()
    return published


def learning_rates(session: PolicyGradientSession, update: int) -> Rates:
    """The schedule's learning rates for update `update`, counted from 0, and the KL coefficient."""
    learner, pg = session.config.learner, session.config.policy_gradient
    scale = lr_scale(update, pg.updates, learner.warmup_updates, learner.final_lr_fraction)
    return Rates(learner.lr * scale, pg.critic.lr * scale, session.kl.coefficient)


def update_metrics(
    session: PolicyGradientSession, batch: Batch, experience: Experience, stats: UpdateStats, version: int
) -> dict[str, float]:
    """What is known of an update but its times; moves the KL coefficient on."""
    metrics = {
        **stats.metrics(),
        **session.token_budget.metrics,
        **experience_metrics(experience, session.config),
        **rollout_metrics(batch, version),
    }
    if session.config.policy_gradient.active_sampling:
        metrics["rollout/resampled_prompts"] = float(session.rollouts.resampled(version))
    session.kl.observe(metrics.get("train/kl_reference"))
    return metrics


def record_inputs(session: PolicyGradientSession, batch: Batch, version: int) -> None:
    """With `policy_gradient.record`, keep what this update is computed from."""
    if session.config.policy_gradient.record:
        folder = session.run_folder / "records" / f"step_{version + 1}"
        state = trainer_state(session, version)
        checkpoint.save(folder / "before", state, session.models, session.optimizers, session.tokenizer)
        update_record.save_batch(folder, batch.samples, batch.rewards_GN)


def record_result(session: PolicyGradientSession, version: int, rates: Rates, stats: UpdateStats) -> None:
    """Complete the record of this update, and delete the oldest."""
    if session.config.policy_gradient.record:
        folder = session.run_folder / "records" / f"step_{version + 1}"
        update_record.save_result(folder, version, rates, update_record.Result(*stats.loss_and_grad_norm()))
        update_record.prune(session.run_folder, session.config.policy_gradient.keep_last)


def trainer_state(session: PolicyGradientSession, version: int) -> checkpoint.TrainerState:
    """The counters of the run after `version` updates."""
    return training.trainer_state(session, version, session.rollouts.plan, session.kl.coefficient)
