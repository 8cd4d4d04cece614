"""The result of each run, and of each setting of an evaluation, with what it must share with other seeds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from grpo_gsm8k.errors import UserError
from grpo_gsm8k.report import collect, seed_keys, tables
from grpo_gsm8k.report.material import AnswerSet, Key, Run

FINISHED = ("done", "stopped early")  # by its own rule, such as patience; not by a signal, a crash or a budget


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
class Entry:
    """A replicate with the name and the settings of its method, before it is grouped."""

    name: str
    keys: Mapping[str, str]
    step: str | None  # of the evaluated checkpoint
    origin: str  # the seeds of the model that it starts from or evaluates; its own if no run made that model
    replicate: Replicate


def validated(run: Run, version: int) -> dict[Key, float] | None:
    """Return the score of each item in a validation; None without readable answers."""
    if version not in run.versions:
        return None
    answers = collect.validation_answers(run, version, [])
    return None if answers is None else dict(answers.share_right)


def entries_of(run: Run, notes: list[str]) -> list[Entry]:
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
    origin = " from ".join(seeds[1:] or seeds)
    return [Entry(name, keys, None, origin, Replicate(run, " from ".join(seeds), version, scores, start, *cost))]


def _unfinished(run: Run) -> str | None:
    """Return why a training run has no result after its last update; None if it has."""
    status = run.summary.get("status")
    if status not in FINISHED:
        return f"it is not finished ({status or 'no summary.json'})"
    if not run.validations:
        return "it has no validation"
    last, updates = int(run.validations[-1]["version"]), int(run.summary.get("steps") or len(run.steps))
    return None if last == updates else f"its last validation is of update {last}, its last update is {updates}"


def _evaluated(run: Run, keys: Mapping[str, str], seed: str, notes: list[str]) -> list[Entry]:
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
    if not sets:
        notes.append(f"{run.name}: in no comparison of methods: it has no graded answers")
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
) -> Entry:
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
    return Entry(label, kept | setting, start.step, " from ".join(start.seeds) or seed, one)
