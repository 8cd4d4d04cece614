"""The numbers at the top of a report, one tile each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from grpo_gsm8k.report import collect, eval_tables, headline, tables, words
from grpo_gsm8k.report.material import Material, Run
from grpo_gsm8k.tracking.summary import best_of


@dataclass(frozen=True, slots=True)
class Tile:
    """One number with its name, and what it refers to."""

    name: str
    value: str
    note: str = ""


def tiles(material: Material, usd_per_gpu_hour: float) -> tuple[Tile, ...]:
    """Return the tiles of a run or of several; those without data are left out."""
    runs = material.runs
    if len(runs) > 1:
        found = [Tile("Runs", str(len(runs))), *_best_of_all(runs)]
    elif runs[0].command == "eval":
        found = _evaluation(runs[0])
    else:
        found = _training(material, runs[0])
    return tuple(tile for tile in (*found, *_cost(runs, usd_per_gpu_hour)) if tile.value)


def _training(material: Material, run: Run) -> list[Tile]:
    known = [dict(v) for v in run.validations if v.get("accuracy") is not None]
    found = [_validation("Accuracy at the start", known[0])] if known else []
    if len(known) > 1:
        found.append(_validation("Accuracy at the end", known[-1]))
        points = known[-1]["accuracy"] - known[0]["accuracy"]
        pair = material.pair(collect.START, run)
        note = words.describe_pair(pair).partition(":")[0] if pair else ""
        shown = {"higher": "significantly higher", "lower": "significantly lower", "noise": "within noise"}
        found.append(Tile("Change", f"{words.points(points)} points", shown.get(note, "")))
        best = best_of(known)
        found += [_validation("Best validation", best)] if best and best != known[-1] else []
    total = run.summary.get("total_steps")
    epoch = run.steps[-1].get("train/epoch") if run.steps else None
    done = f"{len(run.steps)} of {total}" if total else str(len(run.steps))
    found.append(Tile("Updates", done, "" if epoch is None else f"{words.number(epoch)} epochs of the data"))
    return [*found, *_idle(run)]


def _validation(name: str, found: Mapping[str, Any]) -> Tile:
    low, high = found.get("accuracy_ci_low"), found.get("accuracy_ci_high")
    parts = [] if low is None or high is None else [words.interval(low, high)]
    parts += [f"update {found['version']:.0f}"]
    parts += [f"{found['n']:.0f} items"] if found.get("n") else []
    return Tile(name, words.percent(found["accuracy"]), ", ".join(parts))


def _idle(run: Run) -> list[Tile]:
    shares = {name: run.summary.get(f"{name}_idle_frac_mean") for name in ("learner", "actor")}
    shown = [f"{100 * share:.0f} %" for share in shares.values() if share is not None]
    return [Tile("Idle: " + " and ".join(n for n, s in shares.items() if s is not None), " / ".join(shown))]


def _evaluation(run: Run) -> list[Tile]:
    measured = [r for r in eval_tables.results_of(run) if r.get("accuracy") is not None]
    if not measured:
        return []
    best = max(measured, key=lambda result: float(result["accuracy"]))
    label = collect.eval_label(str(best["model"]), str(best["prompting"]), float(best["temperature"]))
    items = max(int(result.get("items") or 0) for result in measured)
    found = [Tile("Accuracy" if len(measured) == 1 else "Highest accuracy", words.percent(best["accuracy"]), label)]
    found += [Tile("Settings compared", str(len(measured)), "models, prompts and temperatures")] if measured[1:] else []
    return [*found, Tile("Questions", str(items))] if items else found


def _best_of_all(runs: Sequence[Run]) -> list[Tile]:
    ends = [(v["accuracy"], run.name) for run in runs if (v := _last(run))]
    ends += [(r["accuracy"], run.name) for run in runs for r in eval_tables.results_of(run) if r.get("accuracy")]
    if not ends:
        return []
    (low, worst), (high, best) = min(ends), max(ends)
    return [Tile("Highest at the end", words.percent(high), best), Tile("Lowest", words.percent(low), worst)]


def _last(run: Run) -> Mapping[str, Any] | None:
    return run.validations[-1] if run.validations and run.validations[-1].get("accuracy") is not None else None


def _cost(runs: Sequence[Run], usd_per_gpu_hour: float) -> list[Tile]:
    used = math.fsum(tables.tokens_used(run) for run in runs)
    seconds = [run.wall_seconds for run in runs]
    hours = [tables.gpu_hours(run) for run in runs]
    total = "" if None in seconds else words.duration(math.fsum(s for s in seconds if s is not None))
    speed = runs[0].summary.get("tokens_per_s_mean") if len(runs) == 1 else None
    gpu = math.fsum(h for h in hours if h is not None)
    cost = headline.price(runs, usd_per_gpu_hour)
    if all(h == 0 for h in hours):
        cost, note = "CPU", "no GPU was used"
    else:
        note = f"{gpu:.2f} GPU-hours at {words.dollars(usd_per_gpu_hour)}" if cost else ""
    return [
        Tile("Tokens", words.count(used) if used else "", f"{words.number(speed)} per second" if speed else ""),
        Tile("Wall time", total, "of all runs" if len(runs) > 1 else ""),
        Tile("Cost", cost, note),
    ]
