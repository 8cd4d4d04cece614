"""Resuming a run: its own configuration, what the command line changes in it, and which changes are refused."""

from __future__ import annotations

import hashlib
import json
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grpo_gsm8k.config import DataConfig, PromptConfig
from grpo_gsm8k.errors import UserError
from grpo_gsm8k.files.json_lines import read_json
from grpo_gsm8k.orchestrator import overrides
from grpo_gsm8k.tracking import manifest, run_folder, saved_config
from grpo_gsm8k.tracking.redaction import HIDDEN, plain, redact
from grpo_gsm8k.tracking.tracker import OVER_BUDGET

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from grpo_gsm8k.config import Config
    from grpo_gsm8k.data.prepare import DataFolder
    from grpo_gsm8k.tracking.run_folder import RunFolder
    from grpo_gsm8k.tracking.saved_config import Values

TRAINING = ("sft", "policy_gradient")
LOOKUP = ("command", "artifacts", *(f"{command}.resume_from" for command in TRAINING))
# Given anew at every start: where the run is, and what to do about changes.
OF_THIS_START = ("artifacts", "resume_force")
# What a checkpoint depends on: with other values its weights, its place in the data or its optimizer state mean
# something else.
MEANING = (
    *("seed", "model.path", "model.revision", "model.init"),
    *(f"data.{name}" for name in DataConfig.model_fields if name != "folder"),
    *(f"prompt.{name}" for name in PromptConfig.model_fields if name != "name"),
    *(f"learner.lora.{name}" for name in ("enabled", "rank", "alpha", "targets", "rslora")),
    *("learner.quantization", "learner.optimizer"),
)
MEANING_OF = {
    "sft": (
        *("sft.loss", "sft.dpo.beta", "sft.dpo.loss", "sft.min_tokens_per_update", "sft.batch_size"),
        *(f"preprocess.{name}" for name in ("source", "path", "calculator", "max_tokens", "overlong")),
    ),
    "policy_gradient": tuple(
        f"policy_gradient.{name}"
        for name in (
            *("loss_type", "advantage", "ratio", "reduction", "group_size", "episodes_per_update"),
            *("critic.kind", "critic.path", "teacher.path", "teacher.model"),
        )
    ),
}
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "vocab.json", "merges.txt")


@dataclass(frozen=True, slots=True)
class SettingChange:
    """A setting, or a fingerprint of an input, that differs from the run's own."""

    key: str
    old: Any
    new: Any


@dataclass(frozen=True, slots=True)
class ReopenedRun:
    """A locked run folder to continue in, the step (None: the newest valid checkpoint), and what was changed."""

    run: RunFolder
    step: int | None
    changes: tuple[SettingChange, ...]


def resumed_values(arguments: Sequence[str]) -> Values | None:
    """Return the values to resume a run with: its own, and what the arguments set explicitly; None for a new run.

    A group (`policy_gradient=ppo`) sets the keys in which its option differs from the one that the run was started
    with. After a stop by the budget, the budget is that of the arguments. Raises UserError for a run that cannot be
    found or read.
    """
    if not any(f"{command}.resume_from" in overrides.keys_set(arguments) for command in TRAINING):
        return None
    composed = saved_config.compose_values(overrides.only(arguments, LOOKUP))
    command = composed["command"]
    spec = composed[command]["resume_from"] if command in TRAINING else None
    if spec is None:
        return None
    run, _ = run_folder.find(Path(composed["artifacts"]), str(spec), command)
    saved = saved_config.read_saved(run)
    if saved.get("command") != command:
        raise UserError(
            f"{command}.resume_from={spec}: {run.path} is a run of command={saved.get('command')}: resume it with that "
            f"command, or name a run of command={command}"
        )
    if unknown := saved_config.unknown_keys(saved):
        print(f"note: {run.config_yaml}: keys that this version does not know are ignored: {', '.join(unknown)}")
    values = saved_config.complete(run, saved)
    given, keys = _explicit(arguments, manifest.earlier_arguments(run), command)
    hidden = [key for key in overrides.differing(given, values) if HIDDEN in str(overrides.value_at(values, key))]
    if run.summary_json.is_file() and read_json(run.summary_json).get("status") == OVER_BUDGET:
        keys += [key for key in overrides.all_keys() if key.startswith("budget.")]  # a spent budget would stop it again
    for key in (*hidden, *keys, *OF_THIS_START):
        overrides.set_value(values, key, overrides.value_at(given, key))
    folder = str(run.path) if spec == "latest" else spec  # `latest` may be another run by the time of the next lookup
    overrides.set_value(values, f"{command}.resume_from", folder)
    return values


@contextmanager
def reopened(config: Config) -> Iterator[ReopenedRun]:
    """Lock the run of `resume_from` and compare its settings with `config`.

    Raises UserError if another process holds the lock, and for a change of what the checkpoint depends on unless
    `resume_force` is set.
    """
    spec = str(config.training.resume_from)
    run, step = run_folder.find(config.artifacts, spec, config.command)
    with run_folder.locked(run):
        changes = _changes(run, config)
        _refuse([c for c in changes if c.key in (*MEANING, *MEANING_OF[config.command])], run, config)
        # A named checkpoint must be valid; for a named run, the learner takes the newest one with valid checksums.
        yield ReopenedRun(run, step if Path(spec).name.startswith("step_") else None, changes)


def changed_inputs(resumed: ReopenedRun, config: Config, inputs: Mapping[str, str]) -> tuple[SettingChange, ...]:
    """Return the inputs whose content differs from when the run was last started. Raises UserError as `reopened`."""
    before = manifest.last_inputs(resumed.run)
    changes = [SettingChange(key, before[key], new) for key, new in inputs.items() if before.get(key, new) != new]
    _refuse(changes, resumed.run, config)
    return tuple(changes)


def fingerprints(config: Config, data: DataFolder, model_folder: Path) -> dict[str, str]:
    """Return digests of what a run reads: prepared problems, token shards (sft), and the tokenizer."""
    found = {"prepared data": listed_files(data.path / manifest.FILE)}
    if config.command == "sft":
        found["preprocessed texts"] = listed_files(config.artifacts / config.preprocess.folder / manifest.FILE)
    files = [model_folder / name for name in TOKENIZER_FILES]
    found["tokenizer files"] = _digest([path.read_bytes().hex() for path in files if path.is_file()])
    return found


def _explicit(arguments: Sequence[str], earlier: Sequence[str] | None, command: str) -> tuple[Values, list[str]]:
    """Return a composition that contains all explicit values, and their keys; `earlier` are the run's arguments."""
    before = {} if earlier is None else overrides.known_groups(earlier)
    chosen = overrides.groups_of(arguments)
    now = {**before, **chosen}
    one, other = (
        saved_config.compose_values([f"command={command}", *(f"{group}={name}" for group, name in groups.items())])
        for groups in (before, now)
    )
    keys = overrides.differing(one, other)
    if earlier is None:  # the run's options are unknown: an option counts as setting its whole section
        sections = tuple(f"{group.replace('/', '.')}." for group in chosen)
        keys += [key for key in overrides.all_keys() if key in chosen or key.startswith(sections)]
    words = [*(f"{group}={name}" for group, name in now.items()), *overrides.value_arguments(arguments)]
    return overrides.compose_arguments(words), [*keys, *overrides.keys_set(arguments)]


def _changes(run: RunFolder, config: Config) -> tuple[SettingChange, ...]:
    before = saved_config.complete(run, saved_config.read_saved(run))
    now = redact(plain(config.model_dump(mode="json")))
    ignored = (*OF_THIS_START, f"{config.command}.resume_from")
    keys = [key for key in overrides.differing(before, now) if key not in ignored]
    return tuple(SettingChange(key, overrides.value_at(before, key), overrides.value_at(now, key)) for key in keys)


def _refuse(changes: Sequence[SettingChange], run: RunFolder, config: Config) -> None:
    if changes and not config.resume_force:
        shown = "; ".join(f"{c.key} was {json.dumps(c.old)}, now {json.dumps(c.new)}" for c in changes)
        raise UserError(
            f"{config.command}.resume_from: {shown}, which the checkpoints of {run.path.name} depend on: resume with "
            "the old value, start a new run, or set resume_force=true"
        )


def listed_files(file: Path) -> str:
    """Return a digest of the files that a manifest lists with their own digests."""
    return _digest(read_json(file)["files"])


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
