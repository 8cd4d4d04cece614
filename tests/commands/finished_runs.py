"""Run folders as training and evaluation leave them, with the embedded model's files or only names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from cli import load_config
from grpo_gsm8k.commands.base_model import find_origin
from grpo_gsm8k.commands.upload import Form, Upload
from grpo_gsm8k.models import EMBEDDED_TINY
from grpo_gsm8k.tracking.run_folder import RunFolder
from grpo_gsm8k.tracking.saved_config import read_config

PG = ("command=policy_gradient", "preset=cpu_demo")
SFT = ("command=sft", "preset=cpu_demo")


def validation(version: int, accuracy: float, low: float, high: float) -> dict[str, float]:
    ends = {"val/accuracy_ci_low": low, "val/accuracy_ci_high": high}
    return {"val/version": version, "val/accuracy": accuracy, **ends, "val/n": 512}


def make_run(artifacts: Path, name: str, *words: str, adapter: bool = False, manifest: Any = None) -> Path:
    """A run with one checkpoint, of update 3, and two validations."""
    folder = artifacts / "runs" / f"20260101-00000{name}"
    model = folder / "checkpoints" / "step_3" / "model"
    model.mkdir(parents=True)
    for file in EMBEDDED_TINY.iterdir():
        if not (adapter and file.name == "model.safetensors"):
            (model / file.name).write_bytes(file.read_bytes())
    if adapter:
        (model / "adapter_model.safetensors").write_bytes(b"adapter")
        values = {"base_model_name_or_path": "/home/planted/base", "r": 8, "revision": None}
        (model / "adapter_config.json").write_text(json.dumps(values))
        (model / "README.md").write_text("base_model: /home/planted/base")
    (model.parent / "manifest.json").write_text("{}")
    config = load_config(list(words or PG)).model_dump(mode="json")
    (folder / "config.yaml").write_text(yaml.safe_dump(config) + "...\n")
    if manifest is not None:
        (folder / "manifest.json").write_text(json.dumps(manifest))
    rows = [validation(3, 0.5, 0.45, 0.55), validation(0, 0.2, 0.17, 0.24)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def make_upload(folder: Path, form: Form = "plain", **changes: Any) -> Upload:
    run = RunFolder(folder)
    config, model = read_config(run), folder / "checkpoints" / "step_3" / "model"
    values: dict[str, Any] = {
        "repo_id": "me/model",
        "run": run,
        "step": 3,
        "trained": config,
        "form": form,
        "folder": model,
        "origin": find_origin(run, config),
        "artifacts": folder.parent.parent,
        "weights": [model],
        "license": None,
    }
    return Upload(**{**values, **changes})
