"""Run folders `artifacts/runs/<YYYYmmdd-HHMMSS>_<name>/`, in UTC: their file names, creation and lookup.

Runs of a sweep are in `artifacts/runs/sweeps/<sweep>/`, and are found like all others.
"""

from __future__ import annotations

import os
import re
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from grpo_gsm8k.errors import UserError
from grpo_gsm8k.files import checksums
from grpo_gsm8k.files.lease import leased, machine_id
from grpo_gsm8k.files.locks import try_lock
from grpo_gsm8k.files.parsing import yaml_value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
RUN_FOLDER = re.compile(r"(\d{8}-\d{6})_(.+)")
WANDB = "wandb"  # wandb's own folder in a run folder, with links that wandb creates
SWEEPS = "sweeps"  # the folder in `runs` that holds the sweep folders
STEP_FOLDER = re.compile(r"step_(0|[1-9]\d*)")


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Paths of the files in a run folder."""

    path: Path

    @property
    def config_yaml(self) -> Path:
        """The resolved configuration, without secrets."""
        return self.path / "config.yaml"

    @property
    def manifest(self) -> Path:
        """Code version, packages, machine and command line of every start."""
        return self.path / "manifest.json"

    @property
    def metrics_jsonl(self) -> Path:
        """One object per policy update and one per validation."""
        return self.path / "metrics.jsonl"

    @property
    def ledger_jsonl(self) -> Path:
        """Outcome of every prompt."""
        return self.path / "ledger.jsonl"

    @property
    def events_jsonl(self) -> Path:
        """Starts, restarts, loaded weights, and anything unusual."""
        return self.path / "events.jsonl"

    @property
    def trace_json(self) -> Path:
        """Timeline of orchestrator, learner and actors."""
        return self.path / "trace.json"

    @property
    def summary_json(self) -> Path:
        """Statistics of the run."""
        return self.path / "summary.json"

    @property
    def training_stats_json(self) -> Path:
        """Reward and losses of the first, middle and last update."""
        return self.path / "training_stats.json"

    @property
    def regression_json(self) -> Path:
        """Results of the regression suite so far."""
        return self.path / "regression.json"

    @property
    def scale_request(self) -> Path:
        """A request of `command=scale` that the run has not taken yet."""
        return self.path / "scale.json"

    @property
    def scale_answer(self) -> Path:
        """The run's answer to it."""
        return self.path / "scale_answer.json"

    @property
    def rollouts(self) -> Path:
        """Training completions as `step_<N>.parquet`."""
        return self.path / "rollouts"

    @property
    def validation(self) -> Path:
        """Validation completions as `step_<N>.parquet`."""
        return self.path / "validation"

    @property
    def checkpoints(self) -> Path:
        """Checkpoint folders `step_<N>/`."""
        return self.path / "checkpoints"

    @property
    def rewards(self) -> Path:
        """Copies of the rewards files that the run uses."""
        return self.path / "rewards"

    @property
    def logs(self) -> Path:
        """Output of the worker processes."""
        return self.path / "logs"


def utc_now() -> datetime:
    """Return the time in UTC: folder names sort by age on machines in several time zones and when clocks change."""
    return datetime.now(UTC)


def create(artifacts: Path, name: str, clock: Callable[[], datetime] = utc_now, sweep: str | None = None) -> RunFolder:
    """Create a run folder; further ones within the same second get the suffixes `-2`, `-3`, ...

    Raises UserError for a name that could leave `artifacts/runs`, and if that is a symlink.
    """
    if not RUN_NAME.fullmatch(name):
        raise UserError(f"name={name!r} is not a valid run name: use letters, digits, '_', '-' and '.'")
    runs = _runs(artifacts) if sweep is None else sweep_folder(artifacts, sweep)
    runs.mkdir(parents=True, exist_ok=True)
    stem = f"{clock():%Y%m%d-%H%M%S}_{name}"
    for number in count(1):
        run = RunFolder(runs / (stem if number == 1 else f"{stem}-{number}"))
        try:
            run.path.mkdir()
        except FileExistsError:
            continue
        for folder in (run.rollouts, run.validation, run.checkpoints, run.logs):
            folder.mkdir()
        return run
    raise AssertionError("count() never ends")


def find(artifacts: Path, spec: str, command: str | None = None) -> tuple[RunFolder, int | None]:
    """Return the run that `spec` selects, and the step of its checkpoint.

    `spec` is `latest` (the newest run with a complete checkpoint), a run folder or its name (step: its newest complete
    checkpoint, None without one), its `name` (the newest run of that name), or a checkpoint folder
    `.../checkpoints/step_<N>`. Complete means that the manifest exists; its bytes are verified on loading. `command`
    restricts `latest` to runs of that command. Raises UserError.
    """
    runs = _runs(artifacts)
    if spec == "latest":
        return _latest(runs, command)
    path = _below(runs, spec)
    if path.parent.name != "checkpoints":
        run = _checked(RunFolder(path))
        return run, max(checkpoint_steps(run), default=None)
    run = _checked(RunFolder(path.parent.parent))
    steps = checkpoint_steps(run)
    for step in steps:
        if path.name == f"step_{step}":
            return run, step
    known = ", ".join(f"step_{step}" for step in steps) or "none"
    raise UserError(f"{spec} is not a complete checkpoint: choose one of those in {run.checkpoints} ({known})")


def find_with(artifacts: Path, spec: str, file: str) -> RunFolder:
    """Return the run that `spec` selects: a folder, its name, or `latest`, the newest run that contains `file`.

    Raises UserError.
    """
    runs = _runs(artifacts)
    if spec != "latest":
        return _checked(RunFolder(_below(runs, spec)))
    for run in _newest_first(runs):
        if (run.path / file).exists():
            return _checked(run)
    raise UserError(f"resume_from=latest: no run in {runs} has {file}: start without resume_from")


def checkpoint_steps(run: RunFolder) -> list[int]:
    """Return the steps of the complete checkpoints, lowest first."""
    return [step for step, path in step_folders(run.checkpoints) if (path / checksums.MANIFEST).is_file()]


def step_folders(folder: Path) -> list[tuple[int, Path]]:
    """Return the `step_<N>` folders in `folder` ordered by N, without files, symlinks and other names."""
    if not folder.is_dir():
        return []
    found = ((STEP_FOLDER.fullmatch(path.name), path) for path in folder.iterdir() if not path.is_symlink())
    return sorted((int(match[1]), path) for match, path in found if match and path.is_dir())


def command_of(run: RunFolder) -> str | None:
    """Return the command that created a run; None without config.yaml. Raises UserError for a damaged one."""
    try:
        config = yaml_value(run.config_yaml.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        config = None
    if not isinstance(config, dict) or not isinstance(config.get("command"), str):
        raise UserError(f"{run.config_yaml} is cut short or damaged: restore it, or name another run")
    return str(config["command"])


@contextmanager
def locked(run: RunFolder) -> Iterator[None]:
    """Hold lock and lease on a run folder. Raises UserError if another process holds it, here or on another machine."""
    lock = try_lock(run.path)
    if lock is None:
        raise UserError(f"{run.path} is in use by another process: wait for it, or stop it")
    try:
        with leased(run.path, machine_id(), tell=lambda line: print(line, file=sys.stderr, flush=True)):
            yield
    finally:
        os.close(lock)


def _runs(artifacts: Path) -> Path:
    runs = artifacts / "runs"
    if runs.is_symlink():
        raise UserError(f"{runs} is a symlink: remove it, or set artifacts=FOLDER to where it points")
    return runs


def _latest(runs: Path, command: str | None) -> tuple[RunFolder, int]:
    for run in _newest_first(runs):
        if (steps := checkpoint_steps(run)) and command in (None, command_of(run)):
            return _checked(run), max(steps)
    which = f" of command={command}" if command else ""
    raise UserError(f"no run{which} in {runs} has a complete checkpoint: train first, or start without resume_from")


def all_folders(runs: Path) -> list[Path]:
    """Return the folders with a run's name in `artifacts/runs` and in its sweeps, oldest first, without symlinks."""
    parents = [runs, *(path for path in _folders(runs / SWEEPS) if RUN_NAME.fullmatch(path.name))]
    found = [path for parent in parents for path in _folders(parent) if RUN_FOLDER.fullmatch(path.name)]
    return sorted(found, key=_age_key)


def sweep_folder(artifacts: Path, sweep: str) -> Path:
    """Return the folder that holds the runs of a sweep. Raises UserError if it is a symlink, or its name leaves it."""
    if not RUN_NAME.fullmatch(sweep):
        raise UserError(f"sweep={sweep!r} is not a valid name: use letters, digits, '_', '-' and '.'")
    folder = _runs(artifacts) / SWEEPS / sweep
    for path in (folder.parent, folder):
        if path.is_symlink():
            raise UserError(f"{path} is a symlink: remove it")
    return folder


def _folders(parent: Path) -> list[Path]:
    if parent.is_symlink() or not parent.is_dir():
        return []
    return [path for path in parent.iterdir() if path.is_dir() and not path.is_symlink()]


def _newest_first(runs: Path) -> Iterator[RunFolder]:
    for path in reversed(all_folders(runs)):
        yield RunFolder(path)


def _age_key(path: Path) -> tuple[str, list[tuple[int, str]]]:
    """Sort key: the timestamp, then the rest with digits as numbers, so that `x-10` is newer than `x-2`."""
    stamp, _, rest = path.name.partition("_")
    return stamp, [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", rest)]


def _below(runs: Path, spec: str) -> Path:
    root = runs.resolve()
    given = Path(spec)
    path = (_named(runs, spec) if len(given.parts) == 1 and not given.exists() else given).resolve()
    if path == root or not path.is_relative_to(root):
        raise UserError(f"resume_from={spec} is not in {runs}: set artifacts=FOLDER, or use resume_from=latest")
    return path


def _named(runs: Path, name: str) -> Path:
    """Return the folder of that name in `runs` or in a sweep, or else of the newest run with that `name`.

    Raises UserError if several sweeps have a folder of that name.
    """
    root = runs.resolve()
    found = [path for path in all_folders(root) if path.name == name]
    if len(found) > 1:
        raise UserError(f"{name} names {len(found)} runs: give the path, such as {found[-1]}")
    with_name = (run.path for run in _newest_first(runs) if run.path.name.partition("_")[2] == name)
    return found[0] if found else next(with_name, root / name)


def _checked(run: RunFolder) -> RunFolder:
    """Raise UserError unless `run` is a run folder without symlinks, through which writes could leave it."""
    if not run.path.is_dir() or not RUN_FOLDER.fullmatch(run.path.name):
        raise UserError(f"{run.path} is not a run folder: name artifacts/runs/<time>_<name>, or use latest")
    for parent, folders, files in os.walk(run.path):
        for path in (Path(parent, name) for name in (*folders, *files)):
            if path.is_symlink():
                raise UserError(f"{path} is a symlink, which this project never creates: remove it")
        if Path(parent) == run.path and WANDB in folders:
            folders.remove(WANDB)
    return run
