"""Methods: the finished runs, and the entries of evaluations, that differ in their seeds alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from grpo_gsm8k.errors import UserError
from grpo_gsm8k.report import collect, seed_keys, settings, tables, words
from grpo_gsm8k.report.material import AnswerSet, Key, Run

FINISHED = ("done", "stopped early")  # by its own rule, such as patience; not by a signal, a crash or a budget
SHOWN_KEYS = 3  # differing settings in a method's name


@dataclass(frozen=True, slots=True)
class Replicate:
    """One seed of a method: a run after its last update, or one model of an evaluation in one setting."""

    run: Run
    seed: str
    version: int | None  # of the model whose answers these are; None if unknown
    scores: Mapping[Key, float]  # share of right samples by item
    start: float | None  # accuracy before the first update
    tokens: float | None
    wall_seconds: float | None
    gpu_hours: float | None


@dataclass(frozen=True, slots=True)
class MethodRuns:
    """The replicates of one method on one data set, with the settings that they share."""

    name: str
    data: str
    keys: Mapping[str, str]
    replicates: tuple[Replicate, ...]

    @property
    def seeds(self) -> tuple[str, ...]:
        """Seeds in the order of the replicates."""
        return tuple(one.seed for one in self.replicates)

    @property
    def items(self) -> tuple[Key, ...]:
        """Items in a fixed order, the same in all replicates."""
        return tuple(sorted(self.replicates[0].scores))

    @property
    def scores(self) -> NDArray[np.float64]:
        """Scores [seeds, items]."""
        return np.array([[one.scores[item] for item in self.items] for one in self.replicates])

    @property
    def is_training(self) -> bool:
        """Whether these are training runs."""
        return self.replicates[0].run.command != "eval"


@dataclass(frozen=True, slots=True)
class _Entry:
    name: str
    keys: Mapping[str, str]
    step: str | None  # of the evaluated checkpoint
    replicate: Replicate


@dataclass(frozen=True, slots=True)
class SeedGroups:
    """All methods of a report, and one line for each run that belongs to none."""

    methods: tuple[MethodRuns, ...]
    notes: tuple[str, ...]

    @property
    def several(self) -> bool:
        """Whether any method has several seeds."""
        return any(len(method.replicates) > 1 for method in self.methods)

    @property
    def comparable(self) -> bool:
        """Whether there are several seeds, or several training methods; evaluations have tables of their own."""
        return self.several or sum(method.is_training for method in self.methods) > 1


def group_runs(runs: Sequence[Run]) -> SeedGroups:
    """Group runs and entries of evaluations by their settings without the seed."""
    notes: list[str] = []
    entries = [entry for run in runs for entry in _entries(run, notes)]
    groups: dict[tuple[tuple[str, str], ...], list[_Entry]] = {}
    for entry in entries:
        groups.setdefault(tuple(sorted(entry.keys.items())), []).append(entry)
    split = [part for group in groups.values() for part in _by_step(group)]
    found = [method for group in split if (method := _method(_newest_of_each_seed(group, notes), notes))]
    return SeedGroups(tuple(_named(found)), (*notes, *_code_note(found)))


def validated(run: Run, version: int) -> dict[Key, float] | None:
    """Return the score of each item in a validation; None without readable answers."""
    if version not in run.versions:
        return None
    answers = collect.validation_answers(run, version, [])
    return None if answers is None else dict(answers.share_right)


def _entries(run: Run, notes: list[str]) -> list[_Entry]:
    """Return a training run as one entry, an evaluation as one per setting; none, with a note, for unfinished ones."""
    if run.command not in collect.COMMANDS:
        notes.append(f"{run.name}: in no comparison of methods: it is a run of command={run.command}")
        return []
    try:
        keys, seeds = seed_keys.run_keys(run.folder, run.command, run.config, run.manifest)
    except UserError as error:
        notes.append(f"{run.name}: in no comparison of methods: {error}")
        return []
    if run.command == "eval":
        return _evaluated(run, keys, seeds[0], notes)
    if reason := _unfinished(run):
        notes.append(f"{run.name}: in no comparison of methods: {reason}")
        return []
    version = int(run.validations[-1]["version"])
    scores = validated(run, version)
    if scores is None:
        notes.append(f"{run.name}: in no comparison of methods: no readable answers of its validation {version}")
        return []
    first = run.validations[0]
    start = first.get("accuracy") if int(first["version"]) == 0 else None
    cost = (tables.tokens_used(run) or None, run.wall_seconds, tables.gpu_hours(run))
    name = seed_keys.method_of(run.folder, run.config)
    return [_Entry(name, keys, None, Replicate(run, " from ".join(seeds), version, scores, start, *cost))]


def _unfinished(run: Run) -> str | None:
    """Return why a training run has no result after its last update; None if it has."""
    status = run.summary.get("status")
    if status not in FINISHED:
        return f"it is not finished ({status or 'no summary.json'})"
    if not run.validations:
        return "it has no validation"
    last, updates = int(run.validations[-1]["version"]), int(run.summary.get("steps") or len(run.steps))
    return None if last == updates else f"its last validation is of update {last}, its last update is {updates}"


def _evaluated(run: Run, keys: Mapping[str, str], seed: str, notes: list[str]) -> list[_Entry]:
    if not run.summary:
        notes.append(f"{run.name}: in no comparison of methods: it is not finished (no summary.json)")
        return []
    lines = collect.predictions(run, [])
    tokens: dict[str, float] = {}
    for line in lines:
        label = collect.eval_label(str(line["model"]), str(line["prompting"]), float(line["temperature"]))
        tokens[label] = tokens.get(label, 0.0) + float(line.get("tokens", 0))
    settings_of = {
        collect.eval_label(str(one["model"]), str(one["prompting"]), float(one["temperature"])): one for one in lines
    }
    sets = collect.eval_answers(run, [])
    return [
        _evaluation_entry(run, keys, seed, answers, settings_of[answers.label], tokens, len(sets)) for answers in sets
    ]


def _evaluation_entry(
    run: Run,
    keys: Mapping[str, str],
    seed: str,
    answers: AnswerSet,
    line: Mapping[str, object],
    tokens: Mapping[str, float],
    of: int,
) -> _Entry:
    model = str(line["model"])
    start = seed_keys.start_of(model)
    digest = start.digest
    if not start.seeds and (weights := (run.summary.get("weights") or {}).get(model)):
        digest += f" {sorted(weights.items())}"  # run:latest may be another model in each evaluation
    setting = {
        "model": digest,
        "prompting": str(line["prompting"]),
        "temperature": f"{float(str(line['temperature'])):g}",
    }
    seeds = " of model ".join((seed, " from ".join(start.seeds))) if start.seeds else seed
    name = start.name if start.seeds else collect.short_model(model)
    label = f"{name}, {setting['prompting']}, T={setting['temperature']}"
    # The time of an evaluation is not recorded by setting.
    cost = (run.wall_seconds, tables.gpu_hours(run)) if of == 1 else (None, None)
    version = int(start.step) if start.step and start.step.isdecimal() else None
    one = Replicate(run, seeds, version, answers.share_right, None, tokens.get(answers.label), *cost)
    kept = {key: text for key, text in keys.items() if key != "model.path"}
    return _Entry(label, kept | setting, start.step, one)


def _by_step(group: Sequence[_Entry]) -> list[list[_Entry]]:
    """Split a group by checkpoint if it has several checkpoints of one training run."""
    seen = [(entry.replicate.seed, entry.step) for entry in group]
    if len({seed for seed, _ in seen}) == len(set(seen)):
        return [list(group)]
    steps = dict.fromkeys(entry.step for entry in group)
    named = [
        (step, [replace(entry, name=f"{entry.name}, update {step}") for entry in group if entry.step == step])
        for step in steps
    ]
    return [[replace(entry, keys={**entry.keys, "step": str(step)}) for entry in part] for step, part in named]


def _newest_of_each_seed(group: Sequence[_Entry], notes: list[str]) -> list[_Entry]:
    found: dict[str, _Entry] = {}
    for entry in sorted(group, key=lambda entry: entry.replicate.run.folder.name):
        if (older := found.get(entry.replicate.seed)) is not None:
            names = f"{older.replicate.run.folder.name} and {entry.replicate.run.folder.name}"
            notes.append(
                f"{names} have the same settings and the seed {entry.replicate.seed}: only the newer one counts"
            )
        found[entry.replicate.seed] = entry
    return sorted(found.values(), key=lambda entry: (len(entry.replicate.seed), entry.replicate.seed))


def _method(group: Sequence[_Entry], notes: list[str]) -> MethodRuns | None:
    """Return the method of a group; None, with a note, if its seeds answered different items."""
    first = group[0]
    replicates = tuple(entry.replicate for entry in group)
    other = next((one for one in replicates if one.scores.keys() != replicates[0].scores.keys()), None)
    if other is not None:
        limits = ", ".join(
            f"{key}={text}" for key, text in first.keys.items() if key.endswith("limit") and "random" in text
        )
        hint = f" ({limits} draws by the seed: give a number)" if limits else ""
        notes.append(
            f"{first.name}: {replicates[0].run.name} and {other.run.name} answered different items{hint}: "
            "in no comparison of methods"
        )
        return None
    if len(ends := sorted({one.version for one in replicates if one.version is not None})) > 1:
        notes.append(f"{first.name}: its seeds are compared after different updates: {', '.join(map(str, ends))}")
    run = replicates[0].run
    data = run.config.get("data") or {}
    split = str((run.config.get("eval") or {}).get("split", "test")) if run.command == "eval" else "val"
    text = f"{data.get('name') or data.get('folder') or words.DASH}, {split}, {len(replicates[0].scores)} items"
    return MethodRuns(first.name, text, first.keys, replicates)


def _named(methods: Sequence[MethodRuns]) -> list[MethodRuns]:
    """Add the differing settings to names that several methods on the same data share."""
    found = []
    for method in methods:
        same = [other for other in methods if (other.name, other.data) == (method.name, method.data)]
        keys = seed_keys.differing_keys([other.keys for other in same])
        texts = [f"{key.rpartition('.')[2]}={method.keys.get(key, settings.ABSENT)}" for key in keys]
        more = [f"{len(texts) - SHOWN_KEYS} more settings"] if len(texts) > SHOWN_KEYS else []
        found.append(replace(method, name=", ".join((method.name, *texts[:SHOWN_KEYS], *more))))
    return found


def _code_note(methods: Sequence[MethodRuns]) -> list[str]:
    runs = {one.run.folder: one.run for method in methods for one in method.replicates}
    versions = {
        f"{str(git.get('sha'))[:12]}{' with changes' if git.get('dirty') else ''}"
        for run in runs.values()
        if (git := run.manifest.get("git") or {}).get("sha")
    }
    return [f"the runs were made with different code: {', '.join(sorted(versions))}"] if len(versions) > 1 else []


def mean_of(values: Sequence[float | None]) -> float | None:
    """Return the mean; None if there is no value, or any is unknown."""
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known and len(known) == len(values) else None
