"""Differences between the settings of runs, and their provenance."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

from grpo_gsm8k.config import Config
from grpo_gsm8k.report.material import Run
from grpo_gsm8k.tracking.saved_config import compose_values

ABSENT = "not set"
EMPTY = "(empty)"
IGNORED = (
    "name",
    "artifacts",
    "shm",
    "run",
    "step",
    "output",
    "device",
    "push",
    "wandb",
    "tracker",
    "completion_tables",
    "report",
    "pipeline",
    "stop_grace_s",
)
COMMANDS_OF_SECTION = {
    "traces": (),
    "preprocess": ("sft",),
    "sft": ("sft",),
    "policy_gradient": ("policy_gradient",),
    "eval": ("eval",),
}


def differences(runs: Sequence[Run]) -> list[tuple[str, ...]]:
    """Return key and values of all settings that differ, except paths, names and unused sections."""
    commands = {run.command for run in runs}
    unused = {name for name, users in COMMANDS_OF_SECTION.items() if commands.isdisjoint(users)}
    flat = [dict(flatten(run.config)) for run in runs]
    keys = dict.fromkeys(key for values in flat for key in values)
    rows = []
    for key in keys:
        section = key.partition(".")[0]
        values = tuple(found.get(key, ABSENT) for found in flat)
        if section not in IGNORED and section not in unused and len(set(values)) > 1:
            rows.append((key, *values))
    return rows


def of_run(run: Run) -> dict[str, str]:
    """Return key and value of all settings of a run, except names, paths and unused sections."""
    unused = {name for name, users in COMMANDS_OF_SECTION.items() if run.command not in users}
    found = dict(flatten(run.config))
    return {key: value for key, value in found.items() if key.partition(".")[0] not in {*IGNORED, *unused}}


def changed(run: Run) -> list[tuple[str, str, str]]:
    """Return key, value and default of the settings that a run changed; empty for a command without defaults."""
    if run.command not in get_args(Config.model_fields["command"].annotation):
        return []
    defaults = dict(flatten(compose_values([f"command={run.command}"])))
    pairs = ((key, value, defaults.get(key, ABSENT)) for key, value in of_run(run).items())
    return [(key, value or EMPTY, default or EMPTY) for key, value, default in pairs if not _equal(value, default)]


def _equal(one: str, other: str) -> bool:
    """Whether two values are equal; a parsed configuration has 900.0 where the file has 900."""
    try:
        return one == other or float(one) == float(other)
    except ValueError:
        return False


def flatten(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield `section.key` and its value as text."""
    for name, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value if isinstance(value, str) else json.dumps(value, default=str)


def made_with(runs: Sequence[Run]) -> list[tuple[str, ...]]:
    """Return rows with start time, code, libraries and machine of each run; rows that no run has are omitted."""
    columns = [_made_with(run.manifest) for run in runs]
    names = dict.fromkeys(name for column in columns for name in column)
    return [(name, *(column.get(name, "–") for column in columns)) for name in names]


def _made_with(manifest: Mapping[str, Any]) -> dict[str, str]:
    if not manifest:
        return {}
    git, machine = manifest.get("git") or {}, manifest.get("machine") or {}
    sha = str(git.get("sha") or "unknown")[:12] + (" with changes" if git.get("dirty") else "")
    gpus, ram = machine.get("gpus") or [], machine.get("ram_bytes")
    found = {
        "started": str(manifest.get("started", "–")),
        "resumed": f"{len(manifest['resumes'])} times" if manifest.get("resumes") else "never",
        "seed": str(manifest.get("seed", "–")),
        "code": sha,
        "python": str(manifest.get("python", "–")),
        "processor": f"{machine.get('cpu', '–')}, {machine.get('usable_cores', '–')} cores",
        "memory": f"{ram / 2**30:.0f} GiB" if isinstance(ram, int) else "–",
        "GPUs": "; ".join(map(str, gpus)) or "none",
    }
    packages = manifest.get("packages") or {}
    return found | {str(name): str(version) for name, version in packages.items() if version}
