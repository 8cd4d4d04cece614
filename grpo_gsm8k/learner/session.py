"""A training session: the parts of one run, and what every training loop does with them."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from grpo_gsm8k.learner import checkpoint
from grpo_gsm8k.learner.checkpoint import TrainerState
from grpo_gsm8k.learner.cpu_turns import takes_turns
from grpo_gsm8k.learner.gpu_peak import gpu_peak_metrics
from grpo_gsm8k.tracking.hardware import usable_cores
from grpo_gsm8k.transport.protocol import Finished, LoadWeights

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from grpo_gsm8k.config import Config
    from grpo_gsm8k.learner.checkpoint_writer import CheckpointWriter
    from grpo_gsm8k.learner.client import Client
    from grpo_gsm8k.learner.earlier_weights import EarlierWeights
    from grpo_gsm8k.learner.objective import Models
    from grpo_gsm8k.learner.oom import TokenBudget
    from grpo_gsm8k.learner.parity_probe import EngineProbe
    from grpo_gsm8k.learner.publisher import Published, Publisher
    from grpo_gsm8k.learner.ranks import Ranks
    from grpo_gsm8k.learner.task import Task
    from grpo_gsm8k.learner.update import Optimizers
    from grpo_gsm8k.learner.validation import Validation
    from grpo_gsm8k.transport.protocol import PublishAgain


@dataclass(kw_only=True, eq=False)
class Session:
    """One run. Updates before `start` are done; `unvalidated` are versions whose validation is not finished."""

    config: Config
    updates: int
    client: Client
    models: Models
    optimizers: Optimizers
    ranks: Ranks
    tokenizer: Any
    task: Task
    validation: Validation
    publisher: Publisher
    earlier: EarlierWeights
    writer: CheckpointWriter
    run_folder: Path
    wandb_run_id: str | None
    start: int
    unvalidated: tuple[int, ...]
    token_budget: TokenBudget
    engine_probe: EngineProbe | None
    turn_s: float = field(default=0.0, init=False)  # how long `take_turn` waited last
    _published: Published | None = field(default=None, init=False)  # since the last update was reported
    _update_started: float = field(default=0.0, init=False)
    _saving_s: float = field(default=0.0, init=False)  # since the last update was reported
    _version: int = field(default=0, init=False)  # of the live weights, between two updates
    _attempts: dict[int, int] = field(default_factory=dict, init=False)  # by version, how often it was published again
    _published_again: int = field(default=0, init=False)  # since the last update was reported

    def __post_init__(self) -> None:
        """Answer reports of damaged weights from now on."""
        self._version = self.start
        self.client.on_damaged = self._publish_again

    @property
    def stop_requested(self) -> bool:
        """Whether the orchestrator asked the run to stop after the present update."""
        return self.client.stop_requested

    def start_clock(self) -> None:
        """Start the clock of the first update, in which nothing was published yet."""
        self._published = None
        self._update_started = time.monotonic()

    def queue_weights(self, version: int) -> None:
        """Publish the weights, and queue them for the engine."""
        self._version = version
        self._published = self.publisher.publish(version)
        self.client.record_span("publish", version)
        self.client.queue(LoadWeights(self._published.ref))

    def _publish_again(self, again: PublishAgain) -> None:
        """Replace damaged weights, bit by bit the same: the live ones if they are of that version.

        If training has gone on, a pinned version comes from its checkpoint, and others are superseded by a newer one.
        """
        version, attempt = again.version, again.attempt
        if attempt <= self._attempts.get(version, 0):
            return
        if version == self._version:
            ref = self.publisher.publish(version, attempt).ref
        elif again.pinned:
            self.writer.wait()  # its checkpoint may be the one that is being written
            ref = self.earlier.publish(version, attempt)
        else:
            print(f"weights version {version} is damaged: version {self._version} takes its place", flush=True)
            return
        self._attempts[version] = attempt
        self._published_again += 1
        self.client.queue(LoadWeights(ref))
        self.client.flush()

    def resubmit_validations(self) -> None:
        """Queue the unfinished validations of versions before `start` again."""
        for version in self.unvalidated:
            if version < self.start and self.earlier.exist(version):
                self.client.queue(LoadWeights(self.earlier.publish(version)))
                self.validation.submit(version)

    def queue_validation(self, version: int) -> None:
        """Queue the validation of `version` if it is due."""
        if self.validates(version):
            self.validation.submit(version)

    def take_turn(self) -> None:
        """Let an engine that uses the learner's cores finish its validations, before an update.

        At once they would take many times as long: each product of an engine's step would wait for a thread that the
        learner keeps from running. While the engine starts, the learner goes on.
        """
        self.turn_s = 0.0
        if takes_turns(self.config, usable_cores()) and self.client.live is not None:
            self.validation.wait()
            self.turn_s = self.validation.waited_s

    def validates(self, version: int) -> bool:
        """Whether `version` is to be validated now; the first one unless that was done before a restart."""
        return version in self.unvalidated if version == self.start else self.validation.due(version)

    def time_metrics(self, waited_s: float) -> dict[str, float]:
        """Return times and GPU memory of the update that ends now, of which the learner waited `waited_s`."""
        now = time.monotonic()
        step_s, self._update_started = now - self._update_started, now
        metrics = {"time/step_s": step_s, "time/learner_idle_frac": waited_s / step_s}
        if self._saving_s:
            metrics["time/checkpoint_s"], self._saving_s = self._saving_s, 0.0
        if self._published is not None:
            metrics["sync/publish_s"] = self._published.seconds
            self._published = None
        if self._published_again:
            metrics["sync/published_again"], self._published_again = float(self._published_again), 0
        if self.client.live is not None:
            metrics["sync/load_s"] = self.client.live.seconds
            metrics["sync/verify_s"] = self.client.live.verify_seconds
            metrics["sync/canary_gap"] = self.client.live.canary_gap
        return metrics | gpu_peak_metrics(self.config.learner.device)

    def state(self, version: int) -> TrainerState:
        """Return the counters of the run after `version` updates."""
        return TrainerState(
            step=version,
            pending_validations=self.validation.pending,
            accuracy=self.validation.accuracy,
            wandb_run_id=self.wandb_run_id,
            seed=self.config.seed,
        )

    def save_due(self, version: int) -> bool:
        """Whether `version` gets a checkpoint: every `save_every` updates, and whenever it is validated.

        A validated version may turn out to be the best one, or have to be validated again after a restart.
        """
        return version % self.config.training.save_every == 0 or self.validation.due(version)

    def save(self, version: int) -> None:
        """Begin to write the checkpoint of `version` unless it exists, from a copy if the weights will change."""
        if self.writer.has(version):
            return
        goes_on = version < self.updates and not self.stop_requested
        self.writer.save(self.state(version), self.models, self.optimizers, training_goes_on=goes_on)
        self._saving_s = self.client.record_span("checkpoint", version)

    def prune_when_saved(self) -> None:
        """Delete the checkpoints that are not kept once a new one is complete. Raises CheckpointError if it failed."""
        if self.writer.finished():
            self.prune()

    def prune(self) -> None:
        """Delete all checkpoints but the last ones, the best, and those still being validated."""
        keep_last = self.config.training.keep_last
        checkpoints = self.run_folder / "checkpoints"
        checkpoint.prune(checkpoints, keep_last, self.validation.accuracy, self.validation.pending)

    def end(self, version: int) -> None:
        """Leave a checkpoint of `version`; finish parity probe and validations unless the run has to stop."""
        self.save(version)
        if not self.stop_requested:
            if self.engine_probe is not None:
                self.engine_probe.poll(wait=True)
            self.validation.wait()
        self.writer.wait()
        self.client.record_span("wait for the checkpoint", version)
        self.prune()

    def outcome(self, version: int) -> Finished:
        """Return the report of the run's end after `version` updates.

        It was stopped if updates are left, or a validation: a resumed run then completes it.
        """
        left = version < self.updates or bool(self.validation.pending)
        return Finished(version, stopped=self.stop_requested and left)
