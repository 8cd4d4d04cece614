"""Recorded runs: each file of `recorded/` is a real run of the demo on two CPU cores, most with one bad setting.

The first line has the command line's overrides, the configuration as far as the checks read it, and the machine; the
others are the run's metrics.jsonl, numbers rounded to 3 digits and without metrics that no check reads, and its events.

Usage: python -m tests.diagnoses.recorded_runs RUN_FOLDER NAME
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from grpo_gsm8k.diagnoses.diagnose import diagnose
from grpo_gsm8k.diagnoses.run_diagnosis import RunDiagnosis
from grpo_gsm8k.diagnoses.run_record import RunRecord, machine_of
from grpo_gsm8k.tracking.summary import validations_of
from tests.conftest import REPO

FOLDER = Path(__file__).resolve().parent / "recorded"
CHECKED = REPO / "grpo_gsm8k" / "diagnoses"
READ = re.compile(r"""(?:setting|amount|now)\(["']([a-z_.]+)["']\)""")  # how the checks read settings
# Keys that they put together from parts.
ALSO = ("actor.threads", "learner.threads", "policy_gradient.eval_every", "policy_gradient.top_p", "learner.lr")
EVENTS = ("out_of_memory", "actor_restarted", "learner_restarted")


def recorded(name: str) -> RunRecord:
    """Return a recorded run."""
    head, *lines = [json.loads(line) for line in (FOLDER / f"{name}.jsonl").read_text().splitlines()]
    updates = [line for line in lines if "step" in line]
    events = [line for line in lines if "kind" in line]
    return RunRecord(updates, validations_of(lines), events, head["config"], head["machine"])


def names() -> list[str]:
    """Return the names of all recorded runs."""
    return sorted(path.stem for path in FOLDER.glob("*.jsonl"))


def found(record: RunRecord) -> dict[str, RunDiagnosis]:
    """Return the diagnoses of a run by kind."""
    return {diagnosis.kind: diagnosis for diagnosis in diagnose(record)}


def warnings(record: RunRecord) -> set[str]:
    """Return the kinds of a run's warnings."""
    return {diagnosis.kind for diagnosis in diagnose(record) if diagnosis.severity == "warning"}


def changed(record: RunRecord, **metrics: Any) -> RunRecord:
    """Return a copy in which all updates have these values, or those of a list; `__` in a name stands for `/`."""
    updates = []
    for at, update in enumerate(record.updates):
        values = {
            name.replace("__", "/"): value[at] if isinstance(value, list) else value for name, value in metrics.items()
        }
        updates.append({**update, **values})
    return replace(record, updates=updates)


def with_settings(record: RunRecord, **settings: Any) -> RunRecord:
    """Return a copy with other settings; `__` in a name stands for a dot."""
    config = json.loads(json.dumps(record.config))
    for key, value in settings.items():
        *sections, last = key.split("__")
        inner = config
        for section in sections:
            inner = inner.setdefault(section, {})
        inner[last] = value
    return replace(record, config=config)


def _write(folder: Path, name: str) -> None:
    config = yaml.safe_load((folder / "config.yaml").read_text())
    full = RunRecord([], config=config)
    source = "".join(path.read_text() for path in CHECKED.glob("*.py"))
    used = RunRecord([], config={"command": config["command"]})
    for key in sorted({*READ.findall(source), *ALSO}):
        if full.setting(key) is not None:
            used = with_settings(used, **{key.replace(".", "__"): full.setting(key)})
    manifest = json.loads((folder / "manifest.json").read_text())
    machine = {key: machine_of(manifest)[key] for key in ("usable_cores", "gpus")}
    overrides = [word for word in manifest["command_line"][1:] if not word.startswith("artifacts=")]
    lines: list[dict[str, Any]] = [{"overrides": overrides, "config": used.config, "machine": machine}]
    for file in ("metrics.jsonl", "events.jsonl"):
        lines += [_rounded(json.loads(line), source) for line in (folder / file).read_text().splitlines()]
    kept = [line for line in lines if line.get("kind", EVENTS[0]) in EVENTS]
    (FOLDER / f"{name}.jsonl").write_text("".join(json.dumps(line, separators=(",", ":")) + "\n" for line in kept))


def _rounded(line: dict[str, Any], source: str) -> dict[str, Any]:
    read = {n: v for n, v in line.items() if "/" not in n or n in source or n.startswith("train/reward_")}
    read |= {n: v for n, v in line.items() if n.startswith("val/") and f'"{n[4:].partition("_ci_")[0]}' in source}
    return {name: json.loads(f"{value:.3g}") if isinstance(value, float) else value for name, value in read.items()}


if __name__ == "__main__":
    _write(Path(sys.argv[1]), sys.argv[2])
