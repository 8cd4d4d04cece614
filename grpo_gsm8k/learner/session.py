"""What every training loop shares: the parts of a run, weights on their way to the engine, checkpoints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from grpo_gsm8k.learner import checkpoint
from grpo_gsm8k.learner.oom import TokenBudget
from grpo_gsm8k.transport.protocol import CheckpointSaved, LoadWeights, OutOfMemory

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from grpo_gsm8k.config import Config
    from grpo_gsm8k.learner.client import Client
    from grpo_gsm8k.learner.objective import Models
    from grpo_gsm8k.learner.publisher import Published, Publisher
    from grpo_gsm8k.learner.rollouts import Plan
    from grpo_gsm8k.learner.update import Optimizers
    from grpo_gsm8k.learner.validation import Validation


@dataclass(frozen=True)
class Session:
    """The parts of one run. `start` of its `updates` are already done; versions `unvalidated` wait to be validated."""

    config: Config
    updates: int
    client: Client
    models: Models
    optimizers: Optimizers
    tokenizer: Any
    validation: Validation
    publisher: Publisher
    run_folder: Path
    wandb_run_id: str | None
    start: int
    unvalidated: tuple[int, ...]
    token_budget: TokenBudget


def open_token_budget(config: Config, client: Client) -> TokenBudget:
    """The configured one; the orchestrator hears of it when it shrinks."""

    def report(tokens: int, reason: str) -> None:
        client.report(OutOfMemory(tokens, reason))

    return TokenBudget(config.learner.token_budget, report)


def queue_weights(session: Session, version: int, validate: bool) -> Published:
    """Publish the weights, and queue them for the engine with their validation where one is wanted."""
    published = session.publisher.publish(version)
    session.client.lap("publish", version)
    session.client.queue(LoadWeights(published.ref))
    if validate:
        session.validation.submit(version)
    return published


def time_metrics(session: Session, published: Published | None, step_s: float, waited_s: float) -> dict[str, float]:
    """Times of one update and of the weights on their way."""
    metrics = {"time/step_s": step_s, "time/learner_idle_frac": waited_s / step_s}
    if published is not None:
        metrics["sync/publish_s"] = published.seconds
    if session.client.live is not None:
        metrics["sync/load_s"] = session.client.live.seconds
        metrics["sync/canary_gap"] = session.client.live.canary_gap
    return metrics


def trainer_state(session: Session, version: int, plan: Plan, kl_coefficient: float) -> checkpoint.TrainerState:
    """The counters of the run after `version` updates."""
    return checkpoint.TrainerState(
        step=version,
        plan=plan,
        kl_coefficient=kl_coefficient,
        pending_validations=session.validation.pending,
        accuracy=session.validation.accuracy,
        wandb_run_id=session.wandb_run_id,
        seed=session.config.seed,
    )


def is_save_due(session: Session, version: int) -> bool:
    """Every `save_every` updates, and whatever is evaluated: it may be the best, or be evaluated after a restart."""
    config = session.config
    suite = config.policy_gradient.regression_suite
    benchmarked = config.command == "policy_gradient" and suite.tasks and version % suite.every == 0
    return version % config.training.save_every == 0 or bool(benchmarked) or session.validation.due(version)


def save(session: Session, state: checkpoint.TrainerState) -> None:
    """Write a checkpoint unless the one of this version is there, and delete those no longer wanted."""
    checkpoints = session.run_folder / "checkpoints"
    if checkpoint.step_folder(checkpoints, state.step).exists():
        return
    path = checkpoint.save(checkpoints, state, session.models, session.optimizers, session.tokenizer)
    session.client.report(CheckpointSaved(state.step, str(path)))
    session.client.lap("checkpoint", state.step)
    prune(session)


def prune(session: Session) -> None:
    """Keep the last checkpoints, the best, and those still being validated."""
    checkpoint.prune(
        session.run_folder / "checkpoints",
        session.config.training.keep_last,
        session.validation.accuracy,
        session.validation.pending,
    )
