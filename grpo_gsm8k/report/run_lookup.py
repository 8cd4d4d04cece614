"""The runs that `report.runs` names: a name stands for all runs of that name, a sweep for all of its runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from grpo_gsm8k.errors import UserError
from grpo_gsm8k.files.parsing import yaml_value
from grpo_gsm8k.report.collect import find_run, read_run
from grpo_gsm8k.report.seed_keys import run_keys
from grpo_gsm8k.tracking import run_folder


def find_runs(artifacts: Path, specs: Sequence[str]) -> list[Path]:
    """Return the folders of `report.runs`, oldest first for each entry, without duplicates. Raises UserError."""
    return list(dict.fromkeys(folder for spec in specs for folder in runs_of(artifacts, spec)))


def runs_of(artifacts: Path, spec: str) -> list[Path]:
    """Return one run for a folder, its name, `latest` or `latest:sft`, and all runs for a name or a sweep.

    Raises UserError if there is none, or if the text has several meanings.
    """
    if spec.partition(":")[0] == "latest":
        return [find_run(artifacts, spec)]
    runs = artifacts / "runs"
    known = run_folder.all_folders(runs)
    meanings = {
        "run folder": _folders(runs, known, spec),
        "name of runs": [path for path in known if _name_of(path, spec) == spec],
        "sweep": _of_sweep(runs, known, spec),
    }
    found = {what: paths for what, paths in meanings.items() if paths}
    if len(found) > 1 and len({frozenset(path.resolve() for path in paths) for paths in found.values()}) > 1:
        raise UserError(f"report.runs: {spec} is a {' and a '.join(found)}: give the folder")
    if not found:
        raise UserError(f"report.runs: {spec} is not a run: give a run folder, a name, or a sweep, of those in {runs}")
    paths = next(iter(found.values()))
    if "run folder" in found and len({path.resolve() for path in paths}) > 1:
        raise UserError(f"report.runs: {spec} is a folder in {len(paths)} places: give the path, such as {paths[-1]}")
    return [path.resolve() for path in paths]


def find_baseline(artifacts: Path, spec: str) -> Path:
    """Return the run of `report.baseline`; of several seeds of one method the newest.

    Raises UserError if there is none, or if the name stands for runs of several methods.
    """
    paths = runs_of(artifacts, spec)
    runs = [read_run(path, path.name) for path in paths] if len(paths) > 1 else []
    found = [run_keys(run.folder, run.command, run.config, run.manifest)[0] for run in runs]
    keys = {tuple(sorted(one.items())) for one in found}
    if len(keys) > 1:
        raise UserError(f"report.baseline={spec} stands for runs of {len(keys)} methods: name one of them")
    return paths[-1]


def _folders(runs: Path, known: Sequence[Path], spec: str) -> list[Path]:
    """Return the run folder at this path, or else those of this name."""
    if Path(spec).parts[1:] or spec.startswith("."):
        return [path for path in (Path(spec), runs / spec) if (path / "config.yaml").is_file()][:1]
    here = [Path(spec)] if (Path(spec) / "config.yaml").is_file() else []
    return [path for path in known if path.name == spec] or here


def _of_sweep(runs: Path, known: Sequence[Path], spec: str) -> list[Path]:
    """Return the runs in `runs/sweeps/<spec>`, or in the sweep folder at this path."""
    sweeps = (runs / run_folder.SWEEPS).resolve()
    for folder in (Path(spec), runs / spec, runs / run_folder.SWEEPS / spec):
        if folder.resolve().parent == sweeps and folder.is_dir():
            inside = [path for path in known if path.resolve().parent == folder.resolve()]
            return [path for path in inside if (path / "config.yaml").is_file()]
    return []


def _name_of(folder: Path, like: str) -> str | None:
    """Return the name of a run, which its folder may extend by a number; None if the folder cannot have that name."""
    text = folder.name.partition("_")[2]
    if not text.startswith(like) or not (folder / "config.yaml").is_file():
        return None
    try:
        config = yaml_value((folder / "config.yaml").read_bytes())
    except (OSError, ValueError):
        return text
    name = config.get("name") if isinstance(config, dict) else None
    return str(name) if name is not None else text
