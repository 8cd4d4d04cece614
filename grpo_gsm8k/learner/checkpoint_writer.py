"""Checkpoints written in a thread, while the learner goes on."""

from __future__ import annotations

import resource
import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import psutil

from grpo_gsm8k.errors import DiskFullError
from grpo_gsm8k.learner import checkpoint
from grpo_gsm8k.learner.client import POLL_SECONDS
from grpo_gsm8k.tracking.hardware import free_memory_bytes
from grpo_gsm8k.transport.protocol import CheckpointSaved, CheckpointsDeleted, Span

if TYPE_CHECKING:
    from pathlib import Path

    from grpo_gsm8k.learner.checkpoint import Snapshot, TrainerState
    from grpo_gsm8k.learner.client import Client
    from grpo_gsm8k.learner.objective import Models
    from grpo_gsm8k.learner.update import Optimizers


class CheckpointWriter:
    """Writes one checkpoint at a time, from a snapshot; reports it when it is complete and on the disk.

    An error of the thread is raised in the learner, by the next call of `save`, `finished` or `wait`. When the disk is
    full, old checkpoints make room for the new one unless all are to be kept.
    """

    def __init__(self, checkpoints: Path, tokenizer: Any, client: Client, keep_last: int | Literal["all"]) -> None:
        """`tokenizer` is saved along with the model."""
        self._checkpoints = checkpoints
        self._keep_last = keep_last
        self._tokenizer = tokenizer
        self._client = client
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._writing: Future[None] | None = None
        self._step = -1  # of the last one that was begun
        self._completed = False  # one was, since the last call of `finished`

    def has(self, step: int) -> bool:
        """Whether the checkpoint of `step` exists or is being written."""
        return step == self._step or checkpoint.step_folder(self._checkpoints, step).exists()

    def save(self, state: TrainerState, models: Models, optimizers: Optimizers, training_goes_on: bool) -> None:
        """Begin to write a checkpoint, after the one before it is complete.

        If `training_goes_on`, this takes the time of a copy of the weights, or that of the write where host memory has
        no room for a copy. Raises CheckpointError.
        """
        self.wait()
        self._step = state.step
        snapshot = checkpoint.take(state, models, optimizers)
        in_background = not training_goes_on or has_room(snapshot.live_nbytes)
        if training_goes_on and in_background:
            snapshot = checkpoint.copied(snapshot)
        self._writing = self._thread.submit(self._write, snapshot)
        if not in_background:
            print(f"checkpoint {state.step} is written before training goes on: no memory for a copy", flush=True)
            self.wait()

    def finished(self) -> bool:
        """Whether a checkpoint was completed since the last call. Raises CheckpointError if it could not be written."""
        if self._writing is not None and self._writing.done():
            self.wait()
        completed, self._completed = self._completed, False
        return completed

    def wait(self) -> None:
        """Wait until nothing is being written. Raises CheckpointError if it could not be written."""
        writing, self._writing = self._writing, None
        if writing is not None:
            self._client.wait_for(writing)
            self._completed = True

    def close(self) -> None:
        """Let the thread complete what it writes."""
        while self._writing is not None and not wait([self._writing], timeout=POLL_SECONDS).done:
            self._client.poll()  # the orchestrator's message that the update is recorded
        self._thread.shutdown()

    def _write(self, snapshot: Snapshot) -> None:
        started = time.monotonic()
        try:
            path = self._write_once(snapshot)
        except DiskFullError as error:
            if not self._make_room(snapshot, str(error)):
                raise
            path = self._write_once(snapshot)
        self._client.report(CheckpointSaved(snapshot.step, str(path)))
        self._client.report(Span.since("checkpoint", snapshot.step, started, row="checkpoints"))

    def _write_once(self, snapshot: Snapshot) -> Path:
        recorded = partial(self._client.wait_until_recorded, snapshot.step)
        return checkpoint.write(self._checkpoints, snapshot, self._tokenizer, recorded)

    def _make_room(self, snapshot: Snapshot, reason: str) -> bool:
        """Delete old checkpoints so that the snapshot fits, and report them; returns whether any were deleted."""
        if self._keep_last == "all":
            return False
        deleted = checkpoint.make_room(self._checkpoints, snapshot)
        if deleted:
            self._client.report(CheckpointsDeleted(deleted, reason))
            print(f"checkpoints {deleted} were deleted to make room for {snapshot.step}: {reason}", flush=True)
        return bool(deleted)


def has_room(copy: float) -> bool:
    """Whether host memory holds `copy` bytes more when the learner next needs as much as it ever has."""
    held = int(psutil.Process().memory_info().rss)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return free_memory_bytes() - max(0, most - held) >= copy
