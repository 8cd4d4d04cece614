"""What makes two runs the same method: settings and inputs, without the seed and what cannot change results."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from grpo_gsm8k.config import parse_config
from grpo_gsm8k.errors import UserError
from grpo_gsm8k.files.parsing import yaml_value
from grpo_gsm8k.report import settings
from grpo_gsm8k.tracking.method import training_method
from grpo_gsm8k.tracking.run_folder import RunFolder
from grpo_gsm8k.tracking.saved_config import complete, unknown_keys

# Where and how a run is recorded, stopped, watched and resumed. A finished run was not stopped by its budget.
IGNORED = (
    *settings.IGNORED,
    *("seed", "sweep", "resume_force", "recipe", "scale", "preset", "doctor", "budget", "console"),
    *("*.resume_from", "*.save_every", "*.keep_last", "*.keep_rollouts", "*.record", "*.cores"),
    *("actor.*_timeout_s", "learner.*_timeout_s", "*.max_restarts", "actor.probe", "actor.canary_tolerance"),
    *("eval.model_path", "eval.prompting", "eval.temperatures"),  # an evaluation has one entry for each of them
    *("eval.num_shards", "eval.max_attempts", "eval.contamination", "eval.baseline", "eval.*regression*"),
    *("eval.lm_eval*", "eval.eval_suites", "eval.suite", "eval.input_path"),
)
MODELS = ("model.path", "policy_gradient.critic.path", "policy_gradient.teacher.path")
RESULTS = ("checkpoints", "merged")  # folders of a run that hold models


@dataclass(frozen=True, slots=True)
class Start:
    """A model as a setting: its path, or the settings of the run that made it, with that run's seeds."""

    name: str
    digest: str
    seeds: tuple[str, ...] = ()
    step: str | None = None


def run_keys(
    folder: Path, command: str, config: Mapping[str, Any], manifest: Mapping[str, Any]
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the settings and inputs that can change a run's results, and its seeds: its own, then its start model's.

    Keys that this version does not know count, too. Raises UserError for a configuration that is not one of ours.
    """
    saved = dict(config)
    values = complete(RunFolder(folder), saved)
    flat = dict(settings.flatten(values))
    given = dict(settings.flatten(saved))
    flat |= {key: text for name in unknown_keys(saved) for key, text in given.items() if _is_below(key, name)}
    unused = {name for name, users in settings.COMMANDS_OF_SECTION.items() if command not in users}
    keys = {key: text for key, text in flat.items() if key.partition(".")[0] not in unused and not ignored(key)}
    seeds = [flat.get("seed", "0")]
    for key in MODELS if command != "eval" else ():
        if key in keys and keys[key] not in ("null", ""):
            start = start_of(keys[key])
            keys[key] = start.digest
            seeds += start.seeds
    own = keys | _inputs(manifest) | {key: text for key, text in _changes(folder).items() if key in keys}
    return own, (seeds[0],) if len(set(seeds)) == 1 else tuple(seeds)


def ignored(key: str) -> bool:
    """Return whether a setting cannot change the results of a finished run."""
    return any(fnmatchcase(key, name) or _is_below(key, name) for name in IGNORED)


def start_of(path: str) -> Start:
    """Return the run behind the path of a checkpoint or a merged model; for any other path the path itself."""
    parts = Path(path).parts
    at = next((parts.index(name) for name in RESULTS if name in parts), 0)
    folder = Path(*parts[:at]) if at else None
    if folder is None or not (folder / "config.yaml").is_file():
        return Start(path, path)
    try:
        config = yaml_value((folder / "config.yaml").read_bytes())
        file = folder / "manifest.json"
        manifest = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        keys, seeds = run_keys(folder, str(config["command"]), config, manifest)
    except (OSError, ValueError, TypeError, KeyError, UserError):
        return Start(path, path)  # a damaged run is equal to nothing but itself
    digest = hashlib.sha256(json.dumps(sorted(keys.items())).encode()).hexdigest()[:8]
    name = method_of(folder, config)
    step = parts[at + 1].removeprefix("step_") if len(parts) > at + 1 else None
    return Start(name, f"{name} of settings {digest}", seeds, step)


def method_of(folder: Path, config: Mapping[str, Any]) -> str:
    """Return the name of a training run's method; its command if the configuration is not valid today."""
    try:
        return training_method(parse_config(complete(RunFolder(folder), dict(config))))
    except UserError:
        return str(config.get("command", "unknown"))


def differing_keys(groups: Sequence[Mapping[str, str]]) -> list[str]:
    """Return the keys in which groups of settings differ."""
    names = dict.fromkeys(key for keys in groups for key in keys)
    return [name for name in names if len({keys.get(name, settings.ABSENT) for keys in groups}) > 1]


def about_items(key: str) -> bool:
    """Return whether a setting or an input decides which items are answered."""
    return key.startswith("data.") or key.endswith("limit") or key in ("eval.split", "prepared data")


def _inputs(manifest: Mapping[str, Any]) -> dict[str, str]:
    resumes = manifest.get("resumes")
    starts = [manifest, *(one for one in (resumes if isinstance(resumes, list) else []) if isinstance(one, dict))]
    found: Mapping[str, Any] = next(
        (start["inputs"] for start in reversed(starts) if isinstance(start.get("inputs"), dict)), {}
    )
    return {str(name): str(digest) for name, digest in found.items()}


def _changes(folder: Path) -> dict[str, str]:
    """Return the settings that a resume changed, as `old, then new`: config.yaml has the last value only."""
    file = RunFolder(folder).events_jsonl
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines() if file.is_file() else []
    found: dict[str, list[str]] = {}
    for line in (line for line in lines if '"config_changed"' in line):
        try:
            event = json.loads(line)
            key, old, new = str(event["key"]), event["old"], event["new"]
        except (ValueError, TypeError, KeyError):
            continue  # a torn last line
        shown = [value if isinstance(value, str) else json.dumps(value) for value in (old, new)]
        found[key] = [*found.get(key, shown[:1]), shown[1]]
    return {key: ", then ".join(values) for key, values in found.items()}


def _is_below(key: str, name: str) -> bool:
    return key == name or key.startswith(f"{name}.")
