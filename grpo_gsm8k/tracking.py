"""What is known about a run: metrics.jsonl, events.jsonl, summary.json and Weights & Biases.

The orchestrator writes it, so a worker that dies loses nothing. The local files are the truth; W&B is a copy that
a thread of its own sends, and nothing that W&B does stops or slows a run. Only this module imports wandb.
"""

from __future__ import annotations

import contextlib
import json
import math
import netrc
import os
import queue
import secrets
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import psutil

from grpo_gsm8k.console import best_of, seconds_of_sessions, summarise, validations_of
from grpo_gsm8k.errors import LabError, UserError
from grpo_gsm8k.integrity import JsonLines, write_atomically
from grpo_gsm8k.metrics import METRICS, PREFIXES
from grpo_gsm8k.run_folder import plain, redact

if TYPE_CHECKING:
    from collections.abc import Mapping

    from grpo_gsm8k.config import WandbConfig
    from grpo_gsm8k.console import ProgressConsole
    from grpo_gsm8k.run_folder import RunFolder

WANDB_QUEUE = 2048  # records; an update every 10 s would take hours to fill it
WANDB_INIT_SECONDS = 60.0
WANDB_CLOSE_SECONDS = 20.0
OVER_BUDGET: Final = "stopped: budget"
SUCCESSES: Final = ("done", "stopped early", OVER_BUDGET)
_END: Final[dict[str, Any]] = {}


class TrackingError(LabError):
    """A record that would make the run's history wrong: an unknown name, or the same step twice."""


def check_names(metrics: Mapping[str, float]) -> None:
    """Raises TrackingError for a name that is not in METRICS and not a `train/reward_<part>`."""
    unknown = [name for name in metrics if name not in METRICS and not name.startswith(tuple(PREFIXES))]
    if unknown:
        raise TrackingError(f"unknown metric names {sorted(unknown)}: add them to grpo_gsm8k.metrics.METRICS")


def check_wandb(config: WandbConfig) -> None:
    """Raises UserError when mode=online has no credentials. Looks whether they exist, never at what they are."""
    if config.mode != "online" or os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return
    host = urlsplit(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai").netloc
    for path in (Path(os.environ.get("NETRC") or "~/.netrc").expanduser(), Path("~/_netrc").expanduser()):
        try:
            if netrc.netrc(str(path)).authenticators(host):
                return
        except (OSError, netrc.NetrcParseError):  # absent or unreadable: no credentials there
            continue
    raise UserError(f"wandb.mode=online has no API key for {host}: set WANDB_API_KEY, or use wandb.mode=offline")


class Tracker:
    """Records one run. To be called from one thread; `close` it always."""

    def __init__(
        self,
        run: RunFolder,
        wandb_config: WandbConfig,
        config: Mapping[str, Any],
        total_steps: int,
        start_step: int,
        resume_id: str | None,
        console: ProgressConsole,
    ) -> None:
        """Open the files, repair a torn last line, start W&B. Nothing is rolled back here: see `rollback`.

        `resume_id` is the W&B run of a checkpoint; without it the run folder's own is continued. Raises UserError.
        """
        check_wandb(wandb_config)
        self._run = run
        self._total_steps = total_steps
        self._console = console
        self._status = "running"
        self._notes: dict[str, Any] = {}
        self._started = time.monotonic()
        self._events = JsonLines(run.events_jsonl)
        self._earlier_s = seconds_of_sessions(self._events.records())
        self._metrics = JsonLines(run.metrics_jsonl)
        self._steps = {record["step"] for record in self._metrics.records() if "step" in record}
        self._last_step = max(self._steps, default=start_step)
        self._wandb_reported = False
        self.event("start", start_step=start_step)
        for file in (self._events, self._metrics):
            if file.repaired_bytes:
                self.event("repaired", file=file.path.name, torn_bytes=file.repaired_bytes)
        self.wandb_run_id = _wandb_run_id(run, wandb_config, resume_id)
        self._wandb: WandbWriter | None = None
        if self.wandb_run_id is not None:
            self._wandb = WandbWriter(run.path, wandb_config, self.wandb_run_id, redact(plain(config)))

    def step(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record policy update `step`, counted from 1. Raises TrackingError for a recorded one or unknown names."""
        check_names(metrics)
        if step < 1 or step in self._steps:
            raise TrackingError(f"step {step} is recorded already or no step: each step is recorded exactly once")
        if step != self._last_step + 1:  # the run goes on: its weights are right, only this record has a hole
            self.event("steps_out_of_order", after=self._last_step, step=step)
        record = {"step": step, **self._finite(metrics, step=step)}
        self._metrics.append(record)
        self._steps.add(step)
        self._last_step = step
        self._send(record)
        self._console.step(step, record)

    def validation(self, version: int, metrics: Mapping[str, float]) -> None:
        """Record the validation of `version`; one that is run again replaces the first, as its Parquet file does."""
        check_names(metrics)
        if metrics.get("val/version", version) != version:
            raise TrackingError(f"validation of version {version} says val/version={metrics['val/version']}")
        record = {**self._finite(metrics, version=version), "val/version": version}
        if replaced := self._metrics.keep(lambda old: old.get("val/version") != version):
            self.event("validation_repeated", version=version, replaced=replaced)
        self._metrics.append(record)
        self._send(record)
        self._console.validation(version, record)

    def rollback(self, step: int) -> None:
        """The learner goes on from `step`: records of later steps and of validations of later versions are void.

        The validation of version `step` itself stays: the checkpoint holds those very weights. W&B cannot take
        points back; it gets the repeated steps a second time.
        """
        removed = self._metrics.keep(lambda record: _updates_of(record) <= step)
        self._steps = {known for known in self._steps if known <= step}
        self._last_step = step
        if removed:
            steps = [record["step"] for record in removed if "step" in record]
            versions = [record["val/version"] for record in removed if "val/version" in record]
            self.event("rollback", step=step, void_steps=steps, void_validations=versions)
        if missing := sorted(set(range(1, step + 1)) - self._steps):  # killed between its checkpoint and its record
            self.event("steps_missing", steps=missing)

    def benchmarks(self, version: int, values: Mapping[str, float]) -> None:
        """Record what a regression suite says of a version; `values` go by `task/metric`."""
        self.event("regression_suite", version=version, values=dict(values))
        finite = {f"regression/{name}": value for name, value in values.items() if math.isfinite(value)}
        self._send({"regression/version": version, **finite})

    def out_of_memory(self, token_budget: int, reason: str) -> None:
        """The learner goes on with smaller micro-batches: an event, and a line that stays."""
        self.event("out_of_memory", token_budget=token_budget, reason=reason)
        self._console.note(f"out of memory: the step is done again with learner.token_budget={token_budget}")

    def event(self, kind: str, **fields: object) -> None:
        """Append one object with `time` (Unix seconds), `kind` and the fields, secrets hidden, to events.jsonl."""
        self._events.append({"time": round(time.time(), 3), "kind": kind, **redact(plain(fields))})

    def best_validation(self) -> dict[str, Any] | None:
        """The validation with the highest accuracy, the earliest of equals; its keys are without `val/`."""
        return best_of(validations_of(self._metrics.records()))

    def summary(self) -> dict[str, Any]:
        """The run so far in a few numbers: what summary.json holds. To be called before or after `close`."""
        numbers = summarise(self._metrics.records(), self._events.records())
        counts = {"status": self._status, "steps": self._last_step, "total_steps": self._total_steps}
        return {**counts, "wall_seconds": self.wall_seconds(), **numbers, **self._notes}

    def wall_seconds(self) -> float:
        """How long the run has taken, earlier sessions included."""
        return self._earlier_s + time.monotonic() - self._started

    def annotate(self, values: Mapping[str, Any]) -> None:
        """Add plain values to the summary."""
        self._notes |= values

    def note(self, text: str) -> None:
        """Show one line that stays."""
        self._console.note(text)

    def close(self, status: str, wandb_seconds: float = WANDB_CLOSE_SECONDS) -> dict[str, Any]:
        """Write summary.json, then give W&B at most `wandb_seconds`. Returns the summary.

        Statuses in SUCCESSES are successes.
        """
        self._status = status
        self.event("end", status=status)
        summary = self.summary()
        write_atomically(self._run.summary_json, json.dumps(summary, indent=2, allow_nan=False) + "\n")
        if self._wandb is not None:
            self._wandb.close(0 if status in SUCCESSES else 1, wandb_seconds)
            self._report_wandb()
            if self._wandb.dropped:
                self.event("wandb_dropped", records=self._wandb.dropped)
        self._console.close()
        self._metrics.close()
        self._events.close()
        return summary

    def _finite(self, metrics: Mapping[str, float], **where: int) -> dict[str, float | None]:
        """JSON has no NaN and no infinity: they become null, and an event says so."""
        values = {name: value if isinstance(value, int) else float(value) for name, value in metrics.items()}
        if odd := {name: str(value) for name, value in values.items() if not math.isfinite(value)}:
            self.event("not_finite", **where, values=odd)
            self._console.note(f"not finite: {odd}")
        return {name: None if name in odd else value for name, value in values.items()}

    def _send(self, record: Mapping[str, Any]) -> None:
        if self._wandb is not None:
            self._wandb.put({name: value for name, value in record.items() if value is not None})
            self._report_wandb()

    def _report_wandb(self) -> None:
        """Say once, on the console and in the events, that W&B fails or lags."""
        if self._wandb is None or self._wandb_reported:
            return
        problem = self._wandb.problem or ("W&B lags behind, records are dropped" if self._wandb.dropped else "")
        if problem:
            self._wandb_reported = True
            self.event("wandb_problem", problem=problem)
            hint = f"training goes on, {self._run.metrics_jsonl.name} is complete"
            self._console.note(f"{redact(problem)} ({hint})")


class WandbWriter:
    """Sends records to W&B from a daemon thread; no call here waits for W&B but `close`, for a limited time."""

    def __init__(self, folder: Path, config: WandbConfig, run_id: str, run_config: dict[str, Any]) -> None:
        """Start at once; `run_config` must be free of secrets."""
        self.problem = ""  # first failure; set by the thread, read by anybody
        self.dropped = 0
        self._folder = folder
        self._config = config
        self._run_id = run_id
        self._run_config = run_config
        self._exit_code = 0
        self._finished = False
        self._queue: queue.Queue[dict[str, Any]] = queue.Queue(WANDB_QUEUE)
        self._thread = threading.Thread(target=self._write_all, name="wandb-writer", daemon=True)
        self._thread.start()

    def put(self, record: dict[str, Any]) -> None:
        """Queue one record, or count it as dropped when the queue is full or the writer has given up."""
        try:
            if not self._thread.is_alive():
                raise queue.Full
            self._queue.put_nowait(record)
        except queue.Full:
            self.dropped += 1

    def close(self, exit_code: int, seconds: float) -> None:
        """Send what is queued and end the W&B run, for at most `seconds`; then end its background process."""
        self._exit_code = exit_code
        deadline = time.monotonic() + seconds
        with contextlib.suppress(queue.Full):  # the thread hangs or is gone; the join below finds out
            self._queue.put(_END, timeout=seconds if self._thread.is_alive() else 0.01)
        self._thread.join(max(deadline - time.monotonic(), 0.0))
        if self._thread.is_alive():
            self._fail(f"W&B did not finish within {seconds:.0f} s")
        if not self._finished:
            self.dropped += self._queue.qsize() - self._queue.queue.count(_END)
            _discard_service()

    def _write_all(self) -> None:
        try:
            run = self._start()
            while (record := self._queue.get()) is not _END:
                run.log(record)
            run.finish(exit_code=self._exit_code)
            self._finished = True
        except Exception as error:  # noqa: BLE001 W&B raises anything; training must not stop, the tracker reports it
            self._fail(f"W&B stopped: {type(error).__name__}: {error}")

    def _start(self) -> Any:
        os.environ.setdefault("WANDB_SILENT", "true")  # its messages would tear the live display
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # it sends stack traces elsewhere
        import wandb

        try:
            return self._init(wandb, self._config.mode)
        except Exception as error:  # W&B raises anything: unreachable, refused, out of time
            if self._config.mode == "offline":
                raise
            self._fail(
                f"W&B failed ({type(error).__name__}: {error}); an offline run is written instead: "
                f"upload it later with `wandb sync {self._folder}/wandb/offline-run-*`"
            )
            _discard_service()  # it still holds the run id
            return self._init(wandb, "offline")

    def _init(self, wandb: Any, mode: str) -> Any:
        settings = wandb.Settings(
            console="off",
            init_timeout=WANDB_INIT_SECONDS,
            finish_timeout=WANDB_CLOSE_SECONDS * 0.75,
            finish_timeout_raises=True,
            disable_git=True,  # a remote's URL may hold a token
            disable_code=True,
            save_code=False,
            x_disable_meta=True,  # it holds the command line
            x_save_requirements=False,
        )
        run = wandb.init(
            mode=mode,
            dir=str(self._folder),
            project=self._config.project,
            entity=self._config.entity,
            id=self._run_id,
            name=self._folder.name,
            config=self._run_config,
            resume="allow",
            settings=settings,
        )
        for axis, groups in (
            ("step", ("train", "rollout", "sync", "time", "learner")),
            ("val/version", ("val",)),
            ("regression/version", ("regression",)),
        ):
            run.define_metric(axis)
            for group in groups:
                run.define_metric(f"{group}/*", step_metric=axis)
        return run

    def _fail(self, problem: str) -> None:
        self.problem = self.problem or " ".join(problem.split())


def _updates_of(record: Mapping[str, Any]) -> int:
    """How many policy updates there had been when this was measured."""
    return int(record["step"] if "step" in record else record["val/version"])


def _wandb_run_id(run: RunFolder, config: WandbConfig, resume_id: str | None) -> str | None:
    """The id of the W&B run, the same after every resume; None when W&B is off."""
    if config.mode == "off":
        return None
    file = run.path / "wandb_run_id"
    run_id = resume_id or (file.read_text().strip() if file.exists() else "") or secrets.token_hex(4)
    write_atomically(file, run_id + "\n")
    return run_id


def _discard_service() -> None:
    """Kill the wandb-core that this process started, and take back wandb's exit hook, which would wait for it."""
    killed: list[psutil.Process] = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if child.name().startswith("wandb-core"):
                killed += [*child.children(recursive=True), child]
    for process in killed:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(killed, timeout=2)
    if "wandb" in sys.modules:
        with contextlib.suppress(Exception, SystemExit):  # it misses the process killed above; why was reported before
            sys.modules["wandb"].teardown()
