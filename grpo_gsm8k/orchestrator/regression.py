"""`policy_gradient.regression_suite`: lm-eval on every Nth checkpoint during training, and an alarm."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections import deque
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from grpo_gsm8k.children.own_python import module_command
from grpo_gsm8k.errors import UserError
from grpo_gsm8k.evaluation.harness.scores import Change, Score, changes_from_baseline
from grpo_gsm8k.files.aside import write_atomically
from grpo_gsm8k.files.json_lines import read_json
from grpo_gsm8k.runtime.program import end_program, start_program

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    from grpo_gsm8k.config import Config
    from grpo_gsm8k.tracking.run_folder import RunFolder
    from grpo_gsm8k.tracking.tracker import Tracker

POLL_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class _Job:
    """The evaluation of one version, running in a child process."""

    version: int
    folder: Path
    process: subprocess.Popen[bytes]


class RegressionSuite:
    """Evaluates one checkpoint at a time, in a process with its own engine; the start model is the baseline.

    If checkpoints come faster than the suite runs, only the newest of those that wait is evaluated.
    """

    def __init__(
        self, config: Config, run: RunFolder, start_model: Path, tracker: Tracker, kv_cache_bytes: int | None
    ) -> None:
        """Queue the baseline unless an earlier session of the run has evaluated it. Without tasks, do nothing.

        `kv_cache_bytes`: size of the KV cache of the suite's engine on a GPU, beside the actor's.
        """
        self._kv_cache_bytes = kv_cache_bytes
        self._settings = config.policy_gradient.regression_suite
        self._enabled = config.command == "policy_gradient" and bool(self._settings.tasks)
        self._file = run.regression_json
        self._folder = run.path / "regression"
        self._tracker = tracker
        self._job: _Job | None = None
        self._waiting: deque[tuple[int, Path]] = deque()
        self._scores = _read(self._file)
        self.alarmed = False
        if self._enabled:
            self._folder.mkdir(exist_ok=True)
            if self._scores:
                self._write(changes_from_baseline(self._scores, _name(0), self._settings.threshold))
            self._config_file = self._folder / "config.json"
            write_atomically(self._config_file, suite_config(config).model_dump_json(indent=2) + "\n")
            if not any(score.model == _name(0) for score in self._scores):
                self._waiting.append((0, start_model))

    def saved(self, version: int, checkpoint: Path) -> None:
        """Queue a new checkpoint if it is due. Its files are hard-linked, because the learner may delete them."""
        if not self._enabled or version % self._settings.every:
            return
        while self._waiting and self._waiting[-1][0]:
            skipped, model = self._waiting.pop()
            shutil.rmtree(model.parent, ignore_errors=True)
            self._tracker.event("regression_suite_skipped", version=skipped, newer=version)
        model = self._folder / f"step_{version}" / "model"
        shutil.rmtree(model.parent, ignore_errors=True)
        shutil.copytree(checkpoint / "model", model, copy_function=_link)
        self._waiting.append((version, model))

    def poll(self) -> bool:
        """Collect results and start the next evaluation; returns whether to stop. Raises UserError for bad tasks."""
        if self._job is not None and self._job.process.poll() is not None:
            job, self._job = self._job, None
            self._collect(job)
        if self.alarmed and self._settings.stop:
            self._waiting.clear()
        if self._job is None and self._waiting:
            self._start(*self._waiting.popleft())
        return self.alarmed and self._settings.stop

    def finish(self, canceled: Callable[[], bool]) -> None:
        """Wait until all queued evaluations are done, or until `canceled` returns True."""
        while (self._job is not None or self._waiting) and not canceled():
            self.poll()
            time.sleep(POLL_SECONDS)

    def close(self) -> None:
        """End the running evaluation."""
        if self._job is not None:
            end_program(self._job.process)
            self._job = None

    def _start(self, version: int, model: Path) -> None:
        folder = self._folder / f"step_{version}"
        folder.mkdir(exist_ok=True)
        command = module_command("grpo_gsm8k.evaluation.harness.child")
        command += [str(self._config_file), str(model), _name(version), str(folder), str(self._kv_cache_bytes or 0)]
        self._job = _Job(version, folder, start_program(command, os.environ, folder / "log.txt"))
        self._tracker.event("regression_suite_started", version=version, pid=self._job.process.pid)

    def _collect(self, job: _Job) -> None:
        for name in ("model", "merged"):
            shutil.rmtree(job.folder / name, ignore_errors=True)
        code = job.process.returncode
        if code:
            reason = _last_line(job.folder / "log.txt")
            if code == 2:
                raise UserError(f"policy_gradient.regression_suite: {reason.removeprefix('error: ')}")
            self._tracker.event("regression_suite_failed", version=job.version, exit_code=code, reason=reason)
            self._tracker.note(f"the regression suite of version {job.version} failed: {reason}")
            return
        found = [Score(**line) for line in read_json(job.folder / "scores.json")]
        self._scores = [score for score in self._scores if score.model != _name(job.version)] + found
        compared = changes_from_baseline(self._scores, _name(0), self._settings.threshold)
        self._write(compared)
        self._tracker.benchmarks(job.version, {f"{s.task}/{s.metric}": s.value for s in found})
        lost = [change for change in compared if change.regression and change.model == _name(job.version)]
        if lost:
            self.alarmed = True
            changed = ", ".join(f"{c.task} {c.metric} {c.before:.4f} -> {c.after:.4f} ({c.verdict})" for c in lost)
            self._tracker.event("regression", version=job.version, lost=[asdict(change) for change in lost])
            self._tracker.note(f"REGRESSION in version {job.version}: {changed}")

    def _write(self, compared: list[Change]) -> None:
        found = {"scores": [asdict(s) for s in self._scores], "changes": [asdict(c) for c in compared]}
        write_atomically(self._file, json.dumps(found, indent=2) + "\n")
        self._tracker.annotate({"lm_eval": found})


def suite_config(config: Config) -> Config:
    """Return the run's configuration with the suite under `eval`, and an engine that fits next to the actor's."""
    suite = config.policy_gradient.regression_suite
    overrides = {
        "eval_suites": suite.tasks,
        "limit": suite.limit,
        "lm_eval_shots": suite.shots,
        "lm_eval_max_gen_toks": suite.max_gen_toks,
        "lm_eval_backend": "engine",
        "lm_eval_chat": False,
        "num_shards": 1,
    }
    actor = config.actor.model_copy(update={"gpu_memory": suite.gpu_memory})
    return config.model_copy(update={"actor": actor, "eval": config.eval.model_copy(update=overrides)})


def _name(version: int) -> str:
    return f"version {version}"


def _read(file: Path) -> list[Score]:
    if not file.is_file():
        return []
    return [Score(**line) for line in read_json(file)["scores"]]


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines() if log.is_file() else []
    return lines[-1] if lines else "the log is empty"
