"""Tables of evaluations: results, comparisons, benchmarks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from grpo_gsm8k.report import collect, words
from grpo_gsm8k.report.material import Run, Table


def results_of(run: Run) -> Sequence[Mapping[str, Any]]:
    """Return the results of an evaluation; empty for other runs."""
    return run.summary.get("results") or () if run.command == "eval" else ()


def evaluations_table(runs: Sequence[Run]) -> Table:
    """Return the table of all results of all evaluations."""
    setting = ("Run", "Model", "Prompting", "Temperature", "Items", "Samples", "Accuracy", "Punctuation-free")
    columns = (
        *setting,
        "Wrong result",
        "No readable result",
        "Truncated",
        "Mean length",
        "Pass@k",
        "Majority@k",
    )
    note = (
        "In brackets: 95 % intervals over the problems. Punctuation-free also accepts the right number in another "
        "notation, such as 1.234 for 1,234. With several samples, accuracy is their mean, pass@k the probability that "
        "one of k samples is right, and majority@k the accuracy of the most common answer of the first k."
    )
    rows = tuple((run.name, *_result(result)) for run in runs for result in results_of(run))
    kept = [at for at in range(len(columns)) if any(row[at] != words.DASH for row in rows)]
    shown = tuple(tuple(row[at] for at in kept) for row in rows)
    return Table("evaluations", "Evaluations", tuple(columns[at] for at in kept), shown, note)


def _result(result: Mapping[str, Any]) -> tuple[str, ...]:
    several = (result.get("samples") or 1) > 1
    return (
        collect.short_model(str(result["model"])),
        str(result["prompting"]),
        f"{float(result['temperature']):g}",
        words.number(result.get("items")),
        words.number(result.get("samples")),
        _with_interval(result, "accuracy", ""),
        _with_interval(result, "accuracy_punctuation_free", "punctuation_free_"),
        *(words.percent(result.get(f"{kind}_frac")) for kind in ("logic_error", "format_error", "truncated")),
        words.number(result.get("length_mean")),
        *(_by_k(result.get(name) or {}) if several else words.DASH for name in ("pass_at", "majority_at")),
    )


def _with_interval(found: Mapping[str, Any], name: str, prefix: str) -> str:
    low, high = (found.get(f"{prefix}ci_{end}") for end in ("low", "high"))
    return words.accuracy({"accuracy": found.get(name), "accuracy_ci_low": low, "accuracy_ci_high": high})


def _by_k(values: Mapping[str, float]) -> str:
    return ", ".join(f"@{k} {words.percent(value)}" for k, value in values.items()) or words.DASH


def any_temperature_table(runs: Sequence[Run]) -> Table:
    """Return the table of problems right at any temperature, for models with several completions per problem."""
    columns = (
        "Run",
        "Model",
        "Prompting",
        "Temperatures",
        "Items",
        "Completions per problem",
        "Right at any temperature",
        "Punctuation-free",
        "Majority",
    )
    note = (
        "A problem counts if at least one of its completions is right, so the value increases with their number. "
        "Majority: the most common answer of all completions is right; a tie is drawn by the seed. In brackets: 95 % "
        "intervals over the problems."
    )
    rows = tuple((run.name, *_any_temperature(found)) for run in runs for found in with_several_completions(run))
    return Table("any-temperature", "All temperatures together", columns, rows, note)


def with_several_completions(run: Run) -> Sequence[Mapping[str, Any]]:
    """Return the results over all temperatures where problems have several completions."""
    found = run.summary.get("any_temperature") or () if run.command == "eval" else ()
    return [one for one in found if one["completions"] > 1]


def _any_temperature(found: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        collect.short_model(str(found["model"])),
        str(found["prompting"]),
        ", ".join(f"{float(temperature):g}" for temperature in found["temperatures"]),
        words.number(found["items"]),
        words.number(found["completions"]),
        _with_interval(found, "accuracy", ""),
        _with_interval(found, "accuracy_punctuation_free", "punctuation_free_"),
        _with_interval(found, "majority", "majority_"),
    )


def comparisons_table(runs: Sequence[Run]) -> Table:
    """Return the table of the comparisons within evaluations."""
    columns = ("Run", "A", "B", "Setting", "B minus A, points", "p", "p corrected", "Smallest difference", "Verdict")
    rows = tuple((run.name, *_comparison(c)) for run in runs for c in _comparisons(run))
    note = (
        "Paired over the problems, with 95 % intervals; p is corrected for the number of pairs (Holm). The smallest "
        "difference is detected by this number of problems with a power of 80 %."
    )
    return Table("comparisons", "Comparisons of the evaluation", columns, rows, note)


def ways_table(runs: Sequence[Run]) -> Table:
    """Return the table of the comparisons between ways of asking the same model."""
    columns = ("Run", "Model", "A", "B", "Temperature", "Gained, lost")
    tests = ("B minus A, points", "p", "p corrected", "Smallest difference", "Verdict")
    rows = tuple((run.name, *_way(c)) for run in runs for c in run.summary.get("comparisons_of_ways") or ())
    note = (
        "Paired over the problems, with 95 % intervals. Gained and lost: problems on which B scores higher and lower "
        "than A. p is McNemar's exact test, or with several samples its generalization by sign flips; it is corrected "
        "for the number of pairs (Holm)."
    )
    return Table("ways", "Ways of asking, compared", (*columns, *tests), rows, note)


def _way(found: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        collect.short_model(str(found["model"])),
        *(str(found[side]) for side in "ab"),
        f"{float(found['temperature']):g}",
        f"{found['gained']}, {found['lost']}",
        *_difference(found),
    )


def _comparisons(run: Run) -> Sequence[Mapping[str, Any]]:
    return run.summary.get("comparisons") or () if run.command == "eval" else ()


def _comparison(found: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        *(collect.short_model(str(found.get(side, words.DASH))) for side in "ab"),
        ", ".join(str(found[name]) for name in ("prompting", "temperature") if name in found) or words.DASH,
        *_difference(found),
    )


def _difference(found: Mapping[str, Any]) -> tuple[str, ...]:
    tests = (found.get("p"), found.get("p_holm"))
    low, high, smallest = (found.get(name) for name in ("ci_low", "ci_high", "smallest_difference"))
    ends = "" if low is None or high is None else f" [{words.points(low)}, {words.points(high)}]"
    return (
        words.points(float(found.get("difference") or 0.0)) + ends,
        *(words.p_value(p).removeprefix("p ").removeprefix("= ") if p is not None else words.DASH for p in tests),
        words.DASH if smallest is None else f"{100 * smallest:.1f} points",
        str(found.get("verdict") or words.DASH),
    )


def lm_eval_table(runs: Sequence[Run]) -> Table:
    """Return the table of lm-eval benchmarks with standard errors, and the changes from the baseline."""
    columns = ("Run", "Task", "Metric", "Model", "Value", "Baseline", "Difference", "Verdict")
    note = "± one standard error from lm-eval; the error of a difference assumes independent measurements."
    rows = tuple((run.name, *row) for run in runs for row in _lm_eval(run.summary.get("lm_eval")))
    return Table("lm-eval", "lm-eval before and after", columns, rows, note)


def _lm_eval(found: object) -> Iterator[tuple[str, ...]]:
    if not isinstance(found, Mapping):
        return
    changes = {_metric_of(change): change for change in found.get("changes", ())}
    for score in found.get("scores", ()):
        value = _plus_minus(score["value"], score["stderr"])
        model = collect.short_model(str(score["model"]))
        change = changes.get(_metric_of(score))
        comparison = (words.DASH,) * 3
        if change is not None:
            verdict = "regression" if change["regression"] else ""
            comparison = (
                words.number(change["before"]),
                _plus_minus(change["difference"], change["stderr"]),
                ", ".join(filter(None, (verdict, change["verdict"]))),
            )
        yield str(score["task"]), str(score["metric"]), model, value, *comparison


def _metric_of(found: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(found[name]) for name in ("model", "task", "metric", "filter"))


def _plus_minus(value: float, stderr: float | None) -> str:
    return words.number(value) if stderr is None else f"{words.number(value)} ± {words.number(stderr)}"
