"""The policy-gradient loop."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from grpo_gsm8k.learner import checkpoint, records
from grpo_gsm8k.learner.optimizer import lr_scale
from grpo_gsm8k.learner.rollouts import Batch, assemble, rollout_metrics
from grpo_gsm8k.learner.update import UpdateStats, update_policy
from grpo_gsm8k.protocol import CheckpointSaved, LoadWeights, StepDone

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from grpo_gsm8k.config import Config
    from grpo_gsm8k.learner.client import Client
    from grpo_gsm8k.learner.model import Policy
    from grpo_gsm8k.learner.optimizer import Optimizer
    from grpo_gsm8k.learner.publisher import Published, Publisher
    from grpo_gsm8k.learner.rollouts import Rollouts
    from grpo_gsm8k.learner.validation import Validation


@dataclass(frozen=True)
class Session:
    """The parts of one run, put together by `session.open_session`. `start` updates are already done."""

    config: Config
    client: Client
    policy: Policy
    optimizer: Optimizer
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
        lr = learning_rate(session.config, version)
        stats = update_policy(
            session.policy, session.optimizer, batch.samples, session.config, version, lr, client.beat
        )
        uses = session.rollouts.uses(version)
        version += 1
        published = announce(session, version, validate=session.validation.due(version))
        session.validation.drain()
        records.write_rollouts(session.run_folder / "rollouts" / f"step_{version}.parquet", batch)
        ended = time.monotonic()
        metrics = step_metrics(session, batch, stats, published, lr, ended - started, waited)
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


def learning_rate(config: Config, update: int) -> float:
    """The schedule's learning rate for update `update`, counted from 0."""
    learner = config.learner
    scale = lr_scale(update, config.policy_gradient.updates, learner.warmup_updates, learner.final_lr_fraction)
    return learner.lr * scale


def step_metrics(
    session: Session,
    batch: Batch,
    stats: UpdateStats,
    published: Published,
    lr: float,
    step_s: float,
    waited_s: float,
) -> dict[str, float]:
    """Everything that is said about one update."""
    metrics = {
        **stats.metrics(),
        **rollout_metrics(batch, published.ref.version - 1),
        "train/lr": lr,
        "sync/publish_s": published.seconds,
        "time/step_s": step_s,
        "time/learner_idle_frac": waited_s / step_s,
    }
    metrics["rollout/tokens_per_s"] = metrics["rollout/tokens"] / step_s
    if session.client.live is not None:
        metrics["sync/load_s"] = session.client.live.seconds
        metrics["sync/canary_gap"] = session.client.live.canary_gap
    return metrics


def save(session: Session, version: int) -> None:
    """Write a checkpoint unless the one of this version is there, and delete those no longer wanted."""
    checkpoints = session.run_folder / "checkpoints"
    if checkpoint.step_folder(checkpoints, version).exists():
        return
    state = checkpoint.TrainerState(
        step=version,
        cursor=version * session.config.policy_gradient.prompts_per_update,
        pending_validations=session.validation.pending,
        accuracy=session.validation.accuracy,
        wandb_run_id=session.wandb_run_id,
        seed=session.config.seed,
    )
    path = checkpoint.save(checkpoints, state, session.policy, session.optimizer, session.tokenizer)
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
