"""Readers of complete and interrupted run folders, and the selection of what a report shows."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from grpo_gsm8k.errors import UserError
from grpo_gsm8k.files.parsing import json_value, yaml_value
from grpo_gsm8k.grading.problem import with_current_names
from grpo_gsm8k.report.material import Answer, AnswerSet, Key, Material, Pair, Run
from grpo_gsm8k.report.pairs import compare_answers, correct_for_many
from grpo_gsm8k.tracking import run_folder
from grpo_gsm8k.tracking.run_folder import RunFolder
from grpo_gsm8k.tracking.summary import seconds_of_sessions, validations_of

COMMANDS = ("policy_gradient", "sft", "eval")
COLUMNS = ["prompt_id", "question", "gold", "text", "extracted", "kind"]
PREDICTION_KEYS = {"model", "prompting", "temperature", "item_id", "question", "gold", "text", "kind"}
MAX_SHOWN = 12  # rows of the heat map, and bars of the kinds of answers
MAX_PAIRS = 12
START, BASELINE, MODELS = "start to end", "to the baseline", "models of one evaluation"


def find_run(artifacts: Path, spec: str) -> Path:
    """Resolve a folder, a name in `artifacts/runs` with or without its time, `latest`, or `latest:sft`.

    Raises UserError if there is no such run.
    """
    runs = artifacts / "runs"
    known = run_folder.all_folders(runs)
    latest, _, command = spec.partition(":")
    if latest == "latest":
        wanted = [command] if command else COMMANDS
        for path in reversed(known):
            if run_folder.command_of(RunFolder(path)) in wanted and not _only_generated(path):
                return path.resolve()
        raise UserError(f"report.runs=[{spec}]: {runs} has no run of {', '.join(wanted)}")
    for path in (Path(spec), runs / spec, *(path for path in known if path.name == spec)):
        if (path / "config.yaml").is_file():
            return path.resolve()
    named = [p for p in known if p.name.partition("_")[2] == spec]
    if not named:
        raise UserError(f"report.runs: {spec} is not a run: give a run folder, or the name of one in {runs}")
    return named[-1].resolve()


def _only_generated(folder: Path) -> bool:
    """Return whether this is a run of `eval.suite=generate`, which has no grades to report."""
    return (folder / "generations.jsonl").exists()


def collect(folders: Sequence[Path], baseline: Path | None) -> Material:
    """Read everything that a report on these runs needs; `baseline` is one of them, None the first."""
    runs = [read_run(folder, _label(folder, folders)) for folder in folders]
    base = next((run for run in runs if run.folder == baseline), runs[0])
    notes = [f"{run.name}: {note}" for run in runs for note in run.notes]
    sets = {run.name: _answer_sets(run, MAX_SHOWN if len(runs) == 1 else 2, notes) for run in runs}
    shown = list(_shown(runs, base, sets))
    merged = over_temperatures(shown)
    if len(shown) > MAX_SHOWN:
        notes.append(
            f"only the first {MAX_SHOWN} of {len(shown)} answer sets are in the figure of the kinds of answers"
        )
    if len(merged) > MAX_SHOWN:
        notes.append(f"only the first {MAX_SHOWN} of {len(merged)} models are in the figure of the questions")
    pairs = list(_pairs(runs, base, sets))
    if len(pairs) > MAX_PAIRS:
        notes.append(f"only the first {MAX_PAIRS} of {len(pairs)} pairs of models are compared item by item")
    return Material(
        tuple(runs),
        base,
        tuple(shown[:MAX_SHOWN]),
        tuple(merged[:MAX_SHOWN]),
        correct_for_many(pairs[:MAX_PAIRS]),
        tuple(dict.fromkeys(notes)),
    )


def read_run(folder: Path, name: str) -> Run:
    """Read a run folder; a torn last line or a missing file becomes a note."""
    files = RunFolder(folder)
    notes: list[str] = []
    records = _measured(_json_lines(files.metrics_jsonl, notes), notes)
    events = [
        e
        for e in _json_lines(files.events_jsonl, notes)
        if isinstance(e.get("kind"), str) and _is_number(e.get("time"))
    ]
    summary = _json(files.summary_json, notes)
    config = _config(files.config_yaml, notes)
    if not summary:
        notes.append("no summary.json: the run was interrupted or is still running")
    return Run(
        name=name,
        folder=folder,
        command=str(config.get("command", "unknown")),
        config=config,
        manifest=_json(files.manifest, notes),
        summary=summary,
        steps=tuple(sorted((r for r in records if "step" in r), key=lambda r: int(r["step"]))),
        validations=tuple(validations_of(records)),
        wall_seconds=summary.get("wall_seconds") or (seconds_of_sessions(events) if events else None),
        notes=tuple(notes),
        events=tuple(events),
    )


def _measured(records: Sequence[dict[str, Any]], notes: list[str]) -> list[dict[str, Any]]:
    """Return the records of metrics.jsonl without values that are not numbers; those, if any, become a note."""
    kept = [{name: value for name, value in r.items() if value is None or _is_number(value)} for r in records]
    kept = [r for r in kept if all(isinstance(r[name], int) for name in ("step", "val/version") if name in r)]
    odd = sum(before != after for before, after in zip(records, kept, strict=False)) + len(records) - len(kept)
    if odd:
        notes.append(
            f"metrics.jsonl has {odd} record{'s' if odd > 1 else ''} with values that are not numbers: left out"
        )
    return kept


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def validation_answers(run: Run, version: int, notes: list[str]) -> AnswerSet | None:
    """Return the answers of one validation; None, with a note, if they are unreadable."""
    try:
        rows = [with_current_names(row) for row in _answer_rows(run.answers_path(version))]
    except (OSError, pa.ArrowException, KeyError) as error:
        notes.append(f"{run.name}: answers of version {version} are unreadable ({type(error).__name__})")
        return None
    answers = [Answer(r["prompt_id"], r["question"], r["gold"], r["text"], r["extracted"], r["kind"]) for r in rows]
    return _answer_set(label := f"{run.name}, update {version}", label, run, version, answers)


def _answer_rows(path: Path) -> list[dict[str, Any]]:
    """Read the columns of COLUMNS, also under their older names; the token columns are larger by far."""
    columns = [name for name in pq.read_schema(path).names if with_current_names({name: 0}).keys() <= set(COLUMNS)]
    rows: list[dict[str, Any]] = pq.read_table(path, columns=columns).to_pylist()
    return rows


def eval_answers(run: Run, notes: list[str]) -> list[AnswerSet]:
    """Return one set per model, prompting variant and temperature of an evaluation, in the order of its results."""
    groups: dict[tuple[str, str, float], list[Answer]] = {}
    for line in sorted(predictions(run, notes), key=lambda line: int(line.get("sample", 0))):
        setting = (str(line["model"]), str(line["prompting"]), float(line["temperature"]))
        item_id, question, gold, text = (str(line[name]) for name in ("item_id", "question", "gold", "text"))
        answer = Answer(item_id, question, gold, text, line.get("extracted"), str(line["kind"]))
        groups.setdefault(setting, []).append(answer)
    order = [(str(r["model"]), str(r["prompting"]), float(r["temperature"])) for r in run.summary.get("results", [])]
    ranked = sorted(groups, key=lambda setting: order.index(setting) if setting in order else len(order))
    found = [
        _answer_set(eval_label(*setting), eval_label(*setting).rpartition(",")[0], run, None, groups[setting])
        for setting in ranked
    ]
    return [answers for answers in found if answers]


def predictions(run: Run, notes: list[str]) -> list[dict[str, Any]]:
    """Return the complete lines of predictions.jsonl."""
    lines = [with_current_names(line) for line in _json_lines(run.folder / "predictions.jsonl", notes)]
    complete = [line for line in lines if line.keys() >= PREDICTION_KEYS]
    if len(complete) < len(lines):
        notes.append(f"{run.name}: {len(lines) - len(complete)} incomplete lines of predictions.jsonl skipped")
    return complete


def eval_label(model: str, prompting: str, temperature: float) -> str:
    """Return a short label of one setting of an evaluation."""
    return f"{short_model(model)}, {prompting}, T={temperature:g}"


def short_model(path: str) -> str:
    """Return a hub id unchanged; run and step of a checkpoint folder; the last part of any other path."""
    parts = Path(path).parts
    if "checkpoints" in parts or "merged" in parts:
        at = parts.index("checkpoints" if "checkpoints" in parts else "merged")
        return "/".join((parts[at - 1], *parts[at + 1 : at + 2]))
    return parts[-1] if path.startswith(("/", ".")) and parts else path


def over_temperatures(shown: Sequence[AnswerSet]) -> list[AnswerSet]:
    """Merge the answer sets of a model and prompting variant over temperatures, with equal weights."""
    groups: dict[tuple[str, str], list[AnswerSet]] = {}
    for answers in shown:
        groups.setdefault((answers.run, answers.base_label), []).append(answers)
    return [_merged(group) if len(group) > 1 else group[0] for group in groups.values()]


def _merged(group: Sequence[AnswerSet]) -> AnswerSet:
    first: dict[Key, Answer] = {}
    shares: dict[Key, list[float]] = {}
    counts: Counter[str] = Counter()
    for answers in group:
        first = {**answers.answers, **first}
        counts.update(answers.kind_counts)
        for key, share in answers.share_right.items():
            shares.setdefault(key, []).append(share)
    right = {key: math.fsum(found) / len(found) for key, found in shares.items()}
    samples = sum(answers.samples for answers in group)
    label = group[0].base_label
    return AnswerSet(label, group[0].run, group[0].version, first, right, counts, samples, label)


def _answer_set(
    label: str, base_label: str, run: Run, version: int | None, answers: Sequence[Answer]
) -> AnswerSet | None:
    first: dict[Key, Answer] = {}
    right: dict[Key, list[bool]] = {}
    for answer in answers:
        key = (answer.item_id, answer.question)
        first.setdefault(key, answer)
        right.setdefault(key, []).append(answer.kind == "correct")
    if not first:
        return None
    counts = Counter(answer.kind for answer in answers)
    shares = {key: sum(verdicts) / len(verdicts) for key, verdicts in right.items()}
    return AnswerSet(label, run.name, version, first, shares, counts, max(map(len, right.values())), base_label)


def _answer_sets(run: Run, most: int, notes: list[str]) -> list[AnswerSet]:
    if run.command == "eval":
        return eval_answers(run, notes)
    found = [validation_answers(run, version, notes) for version in spread(run.versions, most)]
    return [answers for answers in found if answers]


def spread(values: Sequence[int], most: int) -> list[int]:
    """Return at most `most` of the values, evenly spaced, including the first and the last."""
    if len(values) <= most:
        return list(values)
    return [values[round(i * (len(values) - 1) / (most - 1))] for i in range(most)]


def _shown(runs: Sequence[Run], base: Run, sets: dict[str, list[AnswerSet]]) -> Iterable[AnswerSet]:
    """Yield all sets of a single run; of several runs, all of the baseline and the last of other training runs."""
    for run in runs:
        all_sets = len(runs) == 1 or run is base or run.command == "eval"
        yield from sets[run.name] if all_sets else sets[run.name][-1:]


def _pairs(runs: Sequence[Run], base: Run, sets: dict[str, list[AnswerSet]]) -> Iterable[Pair]:
    """Compare each run's end with its start and the baseline's end, and an evaluation's first model with the rest."""
    chosen: list[tuple[AnswerSet, AnswerSet, str]] = []
    ends = {run.name: sets[run.name][-1 if run.command != "eval" else 0] for run in runs if sets[run.name]}
    for run in runs:
        if run is not base and run.name in ends and base.name in ends:
            chosen.append((ends[base.name], ends[run.name], BASELINE))
    for run in runs:
        own = sets[run.name]
        if run.command == "eval":
            chosen += [(own[0], other, MODELS) for other in own[1:]]
        elif len(own) > 1:
            chosen.append((own[0], own[-1], START))
    for before, after, family in chosen:
        if pair := compare_answers(before, after, family):
            yield pair


def _label(folder: Path, folders: Sequence[Path]) -> str:
    """Return the folder name without its time, unless two runs share it."""
    short = folder.name.partition("_")[2] or folder.name
    shared = sum((other.name.partition("_")[2] or other.name) == short for other in folders) > 1
    return folder.name if shared else short


def _json(path: Path, notes: list[str]) -> dict[str, Any]:
    try:
        found = json_value(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        notes.append(f"{path.name} is unreadable ({type(error).__name__})")
        return {}
    return found if isinstance(found, dict) else {}


def _json_lines(path: Path, notes: list[str]) -> list[dict[str, Any]]:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        return []
    found: list[dict[str, Any]] = []
    bad = 0
    for line in filter(None, lines):
        try:
            record = json_value(line)
        except ValueError:
            bad += 1
            continue
        found += [record] if isinstance(record, dict) else []
    if bad:
        notes.append(f"{bad} unreadable line{'s' if bad > 1 else ''} of {path.name} skipped")
    return found


def _config(path: Path, notes: list[str]) -> dict[str, Any]:
    try:
        found = yaml_value(path.read_bytes())
    except (OSError, ValueError) as error:
        notes.append(f"config.yaml is unreadable ({error})")
        return {}
    return found if isinstance(found, dict) else {}
