"""Methods: the finished runs, and the entries of evaluations, that differ in their seeds alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from grpo_gsm8k.report import seed_keys, settings, words
from grpo_gsm8k.report.material import Key, Run
from grpo_gsm8k.report.seed_entries import Entry, Replicate, entries_of

SHOWN_KEYS = 3  # differing settings in a method's name


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
    entries = [entry for run in runs for entry in entries_of(run, notes)]
    groups: dict[tuple[tuple[str, str], ...], list[Entry]] = {}
    for entry in entries:
        groups.setdefault(tuple(sorted(entry.keys.items())), []).append(entry)
    split = [part for group in groups.values() for part in _by_step(group)]
    found = [method for group in split if (method := _method(_newest_of_each_seed(group, notes), notes))]
    return SeedGroups(tuple(_named(found)), (*notes, *_code_note(found)))


def _by_step(group: Sequence[Entry]) -> list[list[Entry]]:
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


def _newest_of_each_seed(group: Sequence[Entry], notes: list[str]) -> list[Entry]:
    """Keep one entry of each seed, and only one of each model if several models were trained or evaluated repeatedly.

    Repetitions with one model share its luck, so they are not independent seeds of the method.
    """
    origins, seeds = {entry.origin for entry in group}, {entry.replicate.seed for entry in group}
    repeated = 1 < len(origins) < len(seeds)
    found: dict[str, Entry] = {}
    for entry in sorted(group, key=lambda entry: entry.replicate.run.folder.name):
        seed = entry.origin if repeated else entry.replicate.seed
        if (older := found.get(seed)) is not None:
            names = f"{older.replicate.run.folder.name} and {entry.replicate.run.folder.name}"
            what = "are about one model, that of seed" if repeated else "have the same settings and the seed"
            notes.append(f"{names} {what} {seed}: only the newer one counts")
        found[seed] = entry
    return sorted(found.values(), key=lambda entry: (len(entry.replicate.seed), entry.replicate.seed))


def _method(group: Sequence[Entry], notes: list[str]) -> MethodRuns | None:
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
