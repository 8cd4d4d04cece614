"""The policy-gradient loop."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from grpo_gsm8k.learner import checkpoint, recording, records
from grpo_gsm8k.learner.experience import Experience, experience_metrics, prepare
from grpo_gsm8k.learner.optimizer import lr_scale
from grpo_gsm8k.learner.rollouts import Batch, assemble, rollout_metrics
from grpo_gsm8k.learner.update import Rates, update_policy
from grpo_gsm8k.protocol import CheckpointSaved, LoadWeights, StepDone

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from grpo_gsm8k.config import Config
    from grpo_gsm8k.learner.client import Client
    from grpo_gsm8k.learner.kl_controller import KlController
    from grpo_gsm8k.learner.objective import Models
    from grpo_gsm8k.learner.publisher import Published, Publisher
    from grpo_gsm8k.learner.rollouts import Rollouts
    from grpo_gsm8k.learner.stats import UpdateStats
    from grpo_gsm8k.learner.update import Optimizers
    from grpo_gsm8k.learner.validation import Validation


@dataclass(frozen=True)
class Session:
    """The parts of one run, put together by `session.open_session`. `start` updates are already done."""

    config: Config
    client: Client
    models: Models
    optimizers: Optimizers
    kl: KlController
    tokenizer: Any
    rollouts: Rollouts
    validation: Validation
    publisher: Publisher
    run_folder: Path
    wandb_run_id: str | None
    start: int
    unvalidated: tuple[int, ...]


def train(session: Session) -> int:
    """Train until the last update or a stop request; returns the number of updates done.

    `version` counts policy updates: batch `version` is trained by weights `version` and makes weights `version + 1`.
    """
    pg, client = session.config.policy_gradient, session.client
    version = session.start
    published = announce(session, version, validate=version in session.unvalidated)
    client.wait_until_live()  # the engine's start-up is no part of the first step
    started = time.monotonic()
    while version < pg.updates:
        asked = time.monotonic()
        groups = session.rollouts.take(version)
        if groups is None:
            break
        waited = time.monotonic() - asked
        batch = assemble(groups, session.config, version)
        rates = learning_rates(session, version)
        record_inputs(session, batch, version)
        experience = prepare(
            batch.samples, batch.rewards_GN, session.models, session.config, rates.kl_coef, client.beat
        )
        stats = update_policy(
            session.models, session.optimizers, experience.groups, session.config, version, rates, client.beat
        )
        record_result(session, version, rates, stats)
        metrics = {**update_metrics(session, batch, experience, stats, version), **rates.metrics()}
        uses = session.rollouts.uses(version)
        version += 1
        published = announce(session, version, validate=session.validation.due(version))
        session.validation.drain()
        records.write_rollouts(
            session.run_folder / "rollouts" / f"step_{version}.parquet", batch, experience.advantages_GN
        )
        ended = time.monotonic()
        metrics |= time_metrics(session, published, metrics["rollout/tokens"], ended - started, waited)
        client.report(StepDone(version, metrics, uses))
        started = ended
        if version % pg.save_every == 0 or version == pg.updates or client.stop_requested:
            save(session, version)
        if client.stop_requested:
            break
    else:
        session.validation.wait()
        prune(session)
        return version
    save(session, version)
    return version


def announce(session: Session, version: int, validate: bool) -> Published:
    """Publish the weights, and send them with everything that may now be generated as one bundle."""
    published = session.publisher.publish(version)
    session.client.queue(LoadWeights(published.ref))
    if validate:
        session.validation.submit(version)
    session.rollouts.request_until(version)
    session.client.flush()
    return published


def learning_rates(session: Session, update: int) -> Rates:
    """The schedule's learning rates for update `update`, counted from 0, and the KL coefficient."""
    learner, pg = session.config.learner, session.config.policy_gradient
    scale = lr_scale(update, pg.updates, learner.warmup_updates, learner.final_lr_fraction)
    return Rates(learner.lr * scale, pg.critic.lr * scale, session.kl.coefficient)


def update_metrics(
    session: Session, batch: Batch, experience: Experience, stats: UpdateStats, version: int
) -> dict[str, float]:
    """What is known of an update but its times; moves the KL coefficient on."""
    metrics = {
        **stats.metrics(),
        **experience_metrics(experience, session.config),
        **rollout_metrics(batch, version),
    }
    if session.config.policy_gradient.active_sampling:
        metrics["rollout/resampled_prompts"] = float(session.rollouts.resampled(version))
    session.kl.observe(metrics.get("train/kl_reference"))
    return metrics


def time_metrics(
    session: Session, published: Published, tokens: float, step_s: float, waited_s: float
) -> dict[str, float]:
    """Times of one update and of the weights on their way."""
    metrics = {
        "sync/publish_s": published.seconds,
        "time/step_s": step_s,
        "time/learner_idle_frac": waited_s / step_s,
        "rollout/tokens_per_s": tokens / step_s,
    }
    if session.client.live is not None:
        metrics["sync/load_s"] = session.client.live.seconds
        metrics["sync/canary_gap"] = session.client.live.canary_gap
    return metrics


def record_inputs(session: Session, batch: Batch, version: int) -> None:
    """With `policy_gradient.record`, keep what this update is computed from."""
    if session.config.policy_gradient.record:
        folder = session.run_folder / "records" / f"step_{version + 1}"
        state = trainer_state(session, version)
        checkpoint.save(folder / "before", state, session.models, session.optimizers, session.tokenizer)
        recording.save_batch(folder, batch.samples, batch.rewards_GN)


def record_result(session: Session, version: int, rates: Rates, stats: UpdateStats) -> None:
    """Complete the record of this update, and delete the oldest."""
    if session.config.policy_gradient.record:
        folder = session.run_folder / "records" / f"step_{version + 1}"
        recording.save_result(folder, version, rates, recording.Result(*stats.loss_and_grad_norm()))
        recording.prune(session.run_folder, session.config.policy_gradient.keep_last)


def trainer_state(session: Session, version: int) -> checkpoint.TrainerState:
    """The counters of the run after `version` updates."""
    return checkpoint.TrainerState(
        step=version,
        plan=session.rollouts.plan,
        kl_coefficient=session.kl.coefficient,
        pending_validations=session.validation.pending,
        accuracy=session.validation.accuracy,
        wandb_run_id=session.wandb_run_id,
        seed=session.config.seed,
    )


def save(session: Session, version: int) -> None:
    """Write a checkpoint unless the one of this version is there, and delete those no longer wanted."""
    checkpoints = session.run_folder / "checkpoints"
    if checkpoint.step_folder(checkpoints, version).exists():
        return
    state = trainer_state(session, version)
    path = checkpoint.save(checkpoints, state, session.models, session.optimizers, session.tokenizer)
    session.client.report(CheckpointSaved(version, str(path)))
    prune(session)


def prune(session: Session) -> None:
    """Keep the last checkpoints, the best, and those still being validated."""
    checkpoint.prune(
        session.run_folder / "checkpoints",
        session.config.policy_gradient.keep_last,
        session.validation.accuracy,
        session.validation.pending,
    )
