"""Bounded restarts of workers that died or got stuck."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from grpo_gsm8k.errors import LabError, UserError, WorkerError

if TYPE_CHECKING:
    from grpo_gsm8k.runtime.process import Worker

FORGIVING_UPDATES = 10  # new updates after which earlier failures no longer count
RecordEvent = Callable[..., None]  # (kind, **fields), as `Tracker.event`


def raise_if_fatal(worker: Worker) -> None:
    """Raise the error that an ended worker reported if a restart cannot fix it: UserError, or another LabError."""
    if worker.crash is not None and worker.crash.fatal:
        raise (UserError if worker.crash.user_error else LabError)(worker.crash.error)


class Restarts:
    """Counts the restarts of one kind of worker and records them.

    The limit is for failures without lasting progress between them: a long run on a shaky machine does not end because
    of its age, and a failure that repeats at the same update does end it.
    """

    def __init__(self, kind: str, limit: int, record: RecordEvent, backoff_s: float) -> None:
        """`kind` is "actor" or "learner"; `backoff_s` is doubled at every restart that counts."""
        self._kind = kind
        self._limit = limit
        self._record = record
        self._backoff_s = backoff_s
        self.count = 0  # of the whole run
        self._counted = 0  # towards the limit
        self._furthest = 0  # the last update that this run has reached
        self._new_updates = 0  # since the last failure
        self._first_errors: dict[str, str] = {}  # by worker: the error that ended its last process before any progress

    def note_start(self, worker: Worker) -> None:
        """Record that a worker was started."""
        self._record("worker_started", worker=worker.name, pid=worker.pid)

    def note_update(self, step: int) -> None:
        """Take note that the run has done update `step`; enough new ones in a row forgive the failures before them."""
        if step > self._furthest:
            self._furthest = step
            self._new_updates += 1
            if self._new_updates >= FORGIVING_UPDATES:
                self._counted = 0

    def note_lost(self, worker: Worker) -> None:
        """Record that a worker's machine is gone: that says nothing about the worker, so it does not count."""
        self.count += 1
        self._record(f"{self._kind}_restarted", worker=worker.name, reason=worker.exit_reason, restart=self.count)

    def note_failure(self, worker: Worker, overdue: str, progressed: bool) -> float:
        """Count a failure of an ended worker; returns the seconds to wait before the next start, 0 if it was stuck.

        `overdue` is the reason if it was stuck; `progressed`: it was ready, or had done an update. Raises WorkerError
        beyond the limit, and for the second equal error in a row before any progress: a restart cannot fix that.
        """
        reason = overdue or (worker.crash.error if worker.crash else worker.exit_reason)
        self.count += 1
        self._counted += 1
        self._new_updates = 0
        self._record(f"{self._kind}_restarted", worker=worker.name, reason=reason, restart=self.count)
        error = "" if overdue or progressed or worker.crash is None else worker.crash.error
        if error and error == self._first_errors.get(worker.name):
            raise WorkerError(f"{worker.name} failed twice in a row at its start: {error}")
        self._first_errors[worker.name] = error
        if self._counted > self._limit:
            raise WorkerError(f"{worker.name} failed {self._counted} times (limit {self._kind}.max_restarts): {reason}")
        return 0.0 if worker.crash is None else self._backoff_s * 2 ** (self._counted - 1)
