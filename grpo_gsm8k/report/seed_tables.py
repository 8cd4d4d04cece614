"""Tables and sentences about methods with several seeds: accuracy with its interval, cost, and paired differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from grpo_gsm8k.evaluation.statistics import comparison
from grpo_gsm8k.evaluation.statistics.hierarchical import MethodDifference, compare_methods, method_interval
from grpo_gsm8k.evaluation.statistics.intervals import Interval, Method
from grpo_gsm8k.report import seed_keys, settings, words
from grpo_gsm8k.report.material import Run, Table
from grpo_gsm8k.report.pairs import SEED
from grpo_gsm8k.report.seed_groups import MethodRuns, SeedGroups, mean_of

MAX_PAIRS = 15  # of methods: all pairs of six


@dataclass(frozen=True, slots=True)
class MethodPair:
    """Two methods and their difference, `after` minus `before`; `found` is None if they answered different items."""

    before: MethodRuns
    after: MethodRuns
    found: MethodDifference | None
    p_holm: float = 1.0


def methods_table(groups: SeedGroups, usd_per_gpu_hour: float) -> Table:
    """Return the table of methods by data: accuracy, interval over seeds and items, spread, and cost per run."""
    cost = ("Tokens per run", "Hours per run", "Dollars per run", "Dollars in total")
    columns = ("Method", "Data", "Seeds", "At start", "Accuracy", "95 % interval", "Covers", "Spread", "By seed", *cost)
    rows = tuple(_method_row(method, usd_per_gpu_hour) for method in groups.methods) if groups.comparable else ()
    note = (
        "A method is all runs whose settings and inputs differ in the seed alone. The accuracy of a training run is "
        "that of the validation after its last update, not of the best one: the best of several on the same items is "
        "biased upward. Interval: hierarchical bootstrap, which draws seeds and then items, with Student's t for the "
        "few seeds; with one seed it covers the items only, and says nothing about another seed. Spread: standard "
        "deviation of the accuracy over the seeds, in points."
    )
    return Table("seeds", "Methods over seeds", columns, rows, note)


def _method_row(method: MethodRuns, usd_per_gpu_hour: float) -> tuple[str, ...]:
    found, runs = interval_of(method), method.replicates
    several = len(runs) > 1
    by_seed = method.scores.mean(axis=1)
    hours, seconds = [one.gpu_hours for one in runs], mean_of([one.wall_seconds for one in runs])
    tokens, mean = mean_of([one.tokens for one in runs]), mean_of(hours)
    prices = [words.DASH if mean is None else f"${mean * n * usd_per_gpu_hour:.2f}" for n in (1, len(runs))]
    return (
        method.name,
        method.data,
        f"{len(runs)}: {', '.join(method.seeds)}" if several else f"1: {method.seeds[0]}",
        words.percent(mean_of([one.start for one in runs])),
        words.percent(found.estimate),
        words.interval(found.low, found.high),
        "seeds and items" if several else "items only",
        f"{100 * by_seed.std(ddof=1):.1f}" if several else words.DASH,
        ", ".join(f"{100 * value:.1f}" for value in by_seed),
        words.DASH if tokens is None else words.count(tokens),
        words.DASH if seconds is None else f"{seconds / 3600:.2g}",
        *(["CPU"] * 2 if mean == 0 else prices),
    )


def interval_of(method: MethodRuns) -> Interval:
    """Return the 95 % interval of a method's accuracy."""
    if len(method.items) < 2:
        only = float(method.scores.mean())
        return Interval(only, 0.0, 1.0, 0.95, Method.CLOPPER_PEARSON)
    return method_interval(method.scores, SEED)


def method_pairs(groups: SeedGroups, baseline: Run, only_baseline: bool) -> tuple[MethodPair, ...]:
    """Compare every two methods, or the others with the baseline's, with Holm's correction.

    More than `MAX_PAIRS` pairs are compared with the baseline only.
    """
    chosen = [(a, b) for a, b in combinations(groups.methods, 2) if _comparable(a, b)]
    if only_baseline or len(chosen) > MAX_PAIRS:
        with_base = [(a, b) for a, b in chosen if _has(a, baseline) or _has(b, baseline)]
        chosen = [(a, b) if _has(a, baseline) else (b, a) for a, b in with_base]
    if not groups.several:
        return ()  # single runs are compared by the report's table of runs
    found = [_compare(a, b) for a, b in chosen]
    tested = [pair.found.p_value for pair in found if pair.found]
    corrected = iter(comparison.holm(tested) if tested else ())
    return tuple(
        MethodPair(pair.before, pair.after, pair.found, next(corrected)) if pair.found else pair for pair in found
    )


def _comparable(a: MethodRuns, b: MethodRuns) -> bool:
    """Whether two methods are about data of one name, and for evaluations, whether their models were asked alike."""
    asked = [(one.is_training, one.keys.get("prompting"), one.keys.get("temperature")) for one in (a, b)]
    return asked[0] == asked[1] and a.data.partition(",")[0] == b.data.partition(",")[0]


def _has(method: MethodRuns, run: Run) -> bool:
    return any(one.run.folder == run.folder for one in method.replicates)


def _compare(before: MethodRuns, after: MethodRuns) -> MethodPair:
    if before.items != after.items or len(before.items) < 2:
        return MethodPair(before, after, None)
    paired = sorted(before.seeds) == sorted(after.seeds)
    order = [after.seeds.index(seed) for seed in before.seeds] if paired else list(range(len(after.seeds)))
    scores: np.ndarray = after.scores[order]
    return MethodPair(before, after, compare_methods(before.scores, scores, paired, SEED))


def pairs_table(pairs: Sequence[MethodPair]) -> Table:
    """Return the table of differences between methods."""
    columns = ("A", "B", "Data", "B minus A, points", "p", "p corrected", "Could detect", "Verdict", "Paired by")
    note = (
        "Paired by item, and by seed where both methods have the same seeds; intervals and p values over seeds and "
        "items (hierarchical bootstrap with Student's t), p corrected for the number of pairs (Holm). Noise: the "
        "interval covers zero, or the corrected p is above 0.05. Could detect: the smallest difference found with a "
        "power of 80 %."
    )
    return Table("seed-pairs", "Methods compared", columns, tuple(_pair_row(pair) for pair in pairs), note)


def _pair_row(pair: MethodPair) -> tuple[str, ...]:
    ends = (pair.before.name, pair.after.name)
    if pair.found is None:
        return (*ends, pair.after.data, f"not compared: {_why_not(pair)}", *[words.DASH] * 5)
    found, change = pair.found, pair.found.difference
    shown = f"{words.points(change.estimate)} [{words.points(change.low)}, {words.points(change.high)}]"
    tests = (words.p_value(p).removeprefix("p ").removeprefix("= ") for p in (found.p_value, pair.p_holm))
    verdict = words.VERDICTS[comparison.verdict(change, pair.p_holm)]
    smallest = words.DASH if found.detectable is None else f"{100 * found.detectable:.1f} points"
    by = "item and seed" if found.paired_seeds else "item"
    return (
        *ends,
        pair.after.data,
        shown,
        *tests,
        smallest,
        verdict,
        by if found.over_seeds else f"{by}; over items only",
    )


def _why_not(pair: MethodPair) -> str:
    differing = seed_keys.differing_keys([pair.before.keys, pair.after.keys])
    keys = [key for key in differing if seed_keys.about_items(key)]
    return f"different items ({', '.join(keys)})" if keys else "different items"


def keys_table(groups: SeedGroups) -> Table:
    """Return the table of the settings in which methods of training differ, and those of evaluations."""
    methods = groups.methods if groups.comparable else ()
    kinds = [[method.keys for method in methods if method.is_training == training] for training in (True, False)]
    keys = dict.fromkeys(key for kind in kinds for key in seed_keys.differing_keys(kind))
    columns = ("Setting", *(f"{method.name} ({method.data})" for method in methods))
    rows = tuple((key, *(method.keys.get(key, settings.ABSENT) for method in methods)) for key in keys)
    return Table(
        "seed-keys", "What differs between the methods", columns, rows, "Within a method only the seed differs."
    )


def findings(groups: SeedGroups, pairs: Sequence[MethodPair]) -> tuple[str, ...]:
    """Summarize methods and their differences in sentences; empty unless a method has several seeds."""
    if not groups.several:
        return ()
    found = [_sentence(method) for method in groups.methods]
    for pair in pairs:
        row = _pair_row(pair)
        tests = f"; corrected {words.p_value(pair.p_holm)}; {row[7]}" if pair.found else ""
        found.append(f"{pair.after.name} minus {pair.before.name} on {pair.after.data}: {row[3]}{tests}.")
    return tuple(found)


def _sentence(method: MethodRuns) -> str:
    found, n = interval_of(method), len(method.replicates)
    start = mean_of([one.start for one in method.replicates])
    before = "" if start is None else f"{words.percent(start)} to "
    over = f"the mean of {n} seeds; interval over seeds and items" if n > 1 else "one seed; interval over items only"
    shown = f"{words.percent(found.estimate)} {words.interval(found.low, found.high)}"
    return f"{method.name} on {method.data}: {before}{shown}, {over}."
