"""Records of a run: metrics.jsonl, events.jsonl, trace.json, summary.json, and copies for other programs.

The orchestrator writes them, so a crashed worker loses none. The local files are authoritative.
"""

from __future__ import annotations

import json
import math
import time
from typing import TYPE_CHECKING, Any, Final

from grpo_gsm8k.diagnoses.diagnose import as_summary, diagnose
from grpo_gsm8k.diagnoses.run_record import RunRecord
from grpo_gsm8k.errors import LabError
from grpo_gsm8k.files.aside import write_atomically
from grpo_gsm8k.files.json_lines import JsonLines
from grpo_gsm8k.tracking.metrics import METRICS, PREFIXES
from grpo_gsm8k.tracking.redaction import plain, redact
from grpo_gsm8k.tracking.summary import best_of, seconds_of_sessions, summarize_run, validations_of
from grpo_gsm8k.tracking.timeline import Timeline
from grpo_gsm8k.tracking.training_stats import training_stats
from grpo_gsm8k.tracking.writer_thread import CLOSE_SECONDS, Record, WriterThread

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from grpo_gsm8k.terminal.console import ProgressConsole
    from grpo_gsm8k.tracking.run_folder import RunFolder
    from grpo_gsm8k.transport.protocol import Span

OVER_BUDGET: Final = "stopped: budget"
SUCCESSES: Final = ("done", "stopped early", OVER_BUDGET)


class TrackingError(LabError):
    """A record is inconsistent with the history of the run: an unknown metric name, or a step recorded twice."""


def check_names(metrics: Mapping[str, float]) -> None:
    """Raise TrackingError for a name that is neither in METRICS nor a `train/reward_<part>`."""
    unknown = [name for name in metrics if name not in METRICS and not name.startswith(tuple(PREFIXES))]
    if unknown:
        raise TrackingError(f"unknown metric names {sorted(unknown)}: add them to grpo_gsm8k.tracking.metrics.METRICS")


class Tracker:
    """Recorder of one run. Not thread-safe; must be closed."""

    def __init__(
        self,
        run: RunFolder,
        writers: Sequence[WriterThread],
        total_steps: int,
        start_step: int,
        console: ProgressConsole,
    ) -> None:
        """Open the files and repair torn last lines. A resumed run also needs `rollback`.

        `writers` get a copy of each record, and are closed with the tracker.
        """
        self.run = run
        self._writers = tuple(writers)
        self.total_steps = total_steps
        self._console = console
        self._status = "running"
        self._notes: dict[str, Any] = {}
        self._started = time.monotonic()
        self._epoch = time.time() - self._started  # times of events do not follow a system clock that is set
        self._events = JsonLines(run.events_jsonl)
        self._timeline = Timeline(run.trace_json)
        self._earlier_s = seconds_of_sessions(self._events.records())
        self._metrics = JsonLines(run.metrics_jsonl)
        self._steps = {record["step"] for record in self._metrics.records() if "step" in record}
        self._last_step = max(self._steps, default=start_step)
        self.event("start", start_step=start_step)
        for file in (self._events, self._metrics):
            if file.repaired_bytes:
                self.event("repaired", file=file.path.name, torn_bytes=file.repaired_bytes)

    def set_total(self, total_steps: int) -> None:
        """Set the number of updates of the run; the learner knows it exactly."""
        if total_steps != self.total_steps:
            self._console.note(f"the run has {total_steps} updates, not {self.total_steps}: some prompts are too long")
            self.total_steps = total_steps
            self._console.total(total_steps)

    def step(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record policy update `step`, counted from 1. Raises TrackingError if recorded before, or unknown names."""
        check_names(metrics)
        if step < 1 or step in self._steps:
            raise TrackingError(f"step {step} is below 1 or already recorded: each step is recorded exactly once")
        if step != self._last_step + 1:  # not an error: the weights are right, only this record has a gap
            self.event("steps_out_of_order", after=self._last_step, step=step)
        record = {"step": step, **self._finite(metrics, step=step)}
        self._metrics.append(record)
        self._steps.add(step)
        self._last_step = step
        completions = self.run.rollouts / f"step_{step}.parquet"
        self._send(Record("update", step, _numbers(record), completions))
        self._console.update(step, record, completions)

    def validation(self, version: int, metrics: Mapping[str, float]) -> None:
        """Record the validation of `version`; a repeated one replaces the first, as in its Parquet file."""
        check_names(metrics)
        if metrics.get("val/version", version) != version:
            raise TrackingError(f"validation of version {version} has val/version={metrics['val/version']}")
        record = {**self._finite(metrics, version=version), "val/version": version}
        if replaced := self._metrics.keep(lambda old: old.get("val/version") != version):
            self.event("validation_repeated", version=version, replaced=replaced)
        self._metrics.append(record)
        self._timeline.validation(version, self._now(), metrics.get("val/seconds", 0.0))
        completions = self.run.validation / f"step_{version}.parquet"
        self._send(Record("validation", version, _numbers(record), completions))
        self._console.validation(version, record, completions)

    def rollback(self, step: int) -> None:
        """Remove the records of later steps and versions, because the learner continues from `step`.

        The validation of version `step` stays: the checkpoint holds exactly those weights. W&B cannot delete points;
        it receives the repeated steps a second time.
        """
        removed = self._metrics.keep(lambda record: _updates_of(record) <= step)
        self._send(Record("rollback", step, {}))
        self._steps = {known for known in self._steps if known <= step}
        self._last_step = step
        if removed:
            steps = [record["step"] for record in removed if "step" in record]
            versions = [record["val/version"] for record in removed if "val/version" in record]
            self.event("rollback", step=step, void_steps=steps, void_validations=versions)
        # A run killed between saving a checkpoint and recording its step lacks that record.
        if missing := sorted(set(range(1, step + 1)) - self._steps):
            self.event("steps_missing", steps=missing)
        self._console.history(self._metrics.records(), self.wall_seconds())

    def benchmarks(self, version: int, values: Mapping[str, float]) -> None:
        """Record a regression suite's results for a version; keys of `values` are `task/metric`."""
        finite = {name: value for name, value in values.items() if math.isfinite(value)}
        self.event("regression_suite", version=version, values=finite)
        named = {f"regression/{name}": value for name, value in finite.items()}
        self._send(Record("regression", version, {"regression/version": version, **named}))

    def out_of_memory(self, token_budget: int, reason: str) -> None:
        """Record that the learner halved its token budget after running out of memory, and show it."""
        self.event("out_of_memory", token_budget=token_budget, reason=reason)
        self._console.note(f"out of memory: repeating the update with learner.token_budget={token_budget}")

    def damaged_weights(self, worker: str, version: int, reason: str) -> None:
        """Record that an actor refused published weights, and show it."""
        self.event("weights_damaged", worker=worker, version=version, reason=reason)
        self._console.note(f"{worker} refused damaged weights: {redact(reason)}; the learner replaces them")

    def event(self, kind: str, **fields: object) -> None:
        """Append `time` (Unix seconds), `kind` and the fields, without secrets, to events.jsonl and the timeline."""
        # The field `key` of an event is the name of a setting, which is not a secret.
        now, shown = self._now(), {n: redact(value, "" if n == "key" else n) for n, value in plain(fields).items()}
        self._events.append({"time": round(now, 3), "kind": kind, **shown})
        self._timeline.mark(kind, now, shown)

    def span(self, worker: str, span: Span) -> None:
        """Add a span of a worker's time to the timeline."""
        self._timeline.span(worker, span)

    def best_validation(self) -> dict[str, Any] | None:
        """Return the validation with the highest accuracy, the earliest on a tie; keys without `val/`."""
        return best_of(validations_of(self._metrics.records()))

    def summary(self) -> dict[str, Any]:
        """Return the content of summary.json for the run so far. May be called before or after `close`."""
        numbers = summarize_run(self._metrics.records(), self._events.records())
        counts = {"status": self._status, "steps": self._last_step, "total_steps": self.total_steps}
        return {**counts, "wall_seconds": self.wall_seconds(), **numbers, **self._notes}

    def wall_seconds(self) -> float:
        """Return the run's wall time, including earlier processes of a resumed run."""
        return self._earlier_s + time.monotonic() - self._started

    def _now(self) -> float:
        return self._epoch + time.monotonic()

    def annotate(self, values: Mapping[str, Any]) -> None:
        """Add plain values to the summary."""
        self._notes |= values

    def diagnose(self, config: Mapping[str, Any], machine: Mapping[str, Any]) -> None:
        """Add `diagnoses` to the summary: what is wrong with the run so far, see docs/diagnoses.md.

        `machine` is that of manifest.json.
        """
        records, events = self._metrics.records(), self._events.records()
        updates = sorted((record for record in records if "step" in record), key=lambda record: record["step"])
        record = RunRecord(updates, validations_of(records), events, config, machine)
        self.annotate({"diagnoses": as_summary(diagnose(record))})

    def note(self, text: str) -> None:
        """Show one line permanently."""
        self._console.note(text)

    def begin(self, phase: str) -> None:
        """Show that a phase of the start is in progress."""
        self._console.begin(phase)

    def end(self, phase: str, seconds: float) -> None:
        """Record that a phase of the start is over, and show its duration."""
        self.event("start_phase", phase=phase, seconds=round(seconds, 3))
        self._console.end(phase, seconds)

    def validating(self, version: int) -> None:
        """Show that a validation is in progress."""
        self._console.validating(version)

    def worker_event(self, kind: str, **fields: object) -> None:
        """Record an event about a worker, and show its failures."""
        self.event(kind, **fields)
        if kind.endswith("_restarted"):
            reason = redact(" ".join(str(fields.get("reason")).split()))
            self._console.note(f"{fields.get('worker')} failed: {reason}")

    def close(self, status: str, seconds: float = CLOSE_SECONDS) -> dict[str, Any]:
        """Write summary.json and training_stats.json, then wait at most `seconds` for all writers together.

        Returns the summary.

        The writers get exit code 0 for statuses in SUCCESSES, else 1.
        """
        self._status = status
        self.event("end", status=status)
        summary = self.summary()
        write_atomically(self.run.summary_json, json.dumps(summary, indent=2, allow_nan=False) + "\n")
        stats = training_stats(self._metrics.records(), self.total_steps)
        write_atomically(self.run.training_stats_json, json.dumps(stats, indent=2, allow_nan=False) + "\n")
        for writer in self._writers:
            writer.end(0 if status in SUCCESSES else 1, summary)
        deadline = time.monotonic() + seconds
        for writer in self._writers:
            writer.join(max(deadline - time.monotonic(), 0.0))
            self._report(writer)
            if writer.dropped:
                self.event(f"{writer.name}_dropped", records=writer.dropped)
        self._console.close()
        self._metrics.close()
        self._events.close()
        self._timeline.close()
        return summary

    def _finite(self, metrics: Mapping[str, float], **where: int) -> dict[str, float | None]:
        """Replace NaN and infinity, which JSON lacks, by None, and record an event."""
        values = {name: value if isinstance(value, int) else float(value) for name, value in metrics.items()}
        if odd := {name: str(value) for name, value in values.items() if not math.isfinite(value)}:
            self.event("not_finite", **where, values=odd)
            self._console.note(f"not finite: {odd}")
        return {name: None if name in odd else value for name, value in values.items()}

    def _send(self, record: Record) -> None:
        for writer in self._writers:
            writer.put(record)
            self._report(writer)

    def _report(self, writer: WriterThread) -> None:
        """Report the first failure or delay of a writer, once, on the console and as an event."""
        if writer.reported or not (problem := writer.problem):
            return
        writer.reported = True
        self.event(f"{writer.name}_problem", problem=problem)
        hint = f"training continues, {self.run.metrics_jsonl.name} is complete"
        self._console.note(f"{redact(problem)} ({hint})")


def _numbers(record: Mapping[str, Any]) -> dict[str, float]:
    """Return the values of a record that are numbers; those that were not finite are None."""
    return {name: value for name, value in record.items() if value is not None}


def _updates_of(record: Mapping[str, Any]) -> int:
    """Return how many policy updates had been applied when this record was measured."""
    return int(record["step"] if "step" in record else record["val/version"])
