"""The results of an accuracy evaluation as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from grpo_gsm8k.evaluation.any_temperature import AnyTemperature
    from grpo_gsm8k.evaluation.comparisons import Compared, ComparedWays
    from grpo_gsm8k.evaluation.results import SettingResult


def results_table(
    found: Sequence[SettingResult],
    anywhere: Sequence[AnyTemperature],
    compared: Sequence[Compared],
    ways: Sequence[ComparedWays] = (),
) -> str:
    """Format all results as text: each model's name, which may be a long path, above lines of at most 80 columns."""
    head = f"{'asked':14} {'t':>4} {'accuracy [95 %]':19} {'punctuation-free':19} {'cut':>6} {'format':>6} {'logic':>6}"
    lines = [head]
    for before, r in zip([None, *found], found, strict=False):
        if before is None or before.model != r.model:
            lines.append(r.model)
        lines += _setting_lines(r)
    for a in anywhere:
        if a.completions > 1:
            lines += _any_temperature_lines(a)
    for c in compared:
        lines.append(f"{c.b} against {c.a} ({c.prompting}, temperature {c.temperature:g}): {_difference(c)}")
    for w in ways:
        lines.append(f"{w.b} against {w.a} ({w.model}, temperature {w.temperature:g}): {_difference(w)}")
    return "\n".join(lines)


def _setting_lines(r: SettingResult) -> Iterator[str]:
    strict = _interval(r.accuracy, r.ci_low, r.ci_high)
    lenient = _interval(r.accuracy_punctuation_free, r.punctuation_free_ci_low, r.punctuation_free_ci_high)
    rates = f"{r.truncated_frac:6.1%} {r.format_error_frac:6.1%} {r.logic_error_frac:6.1%}"
    yield f"{r.prompting:14} {r.temperature:4.2f} {strict:19} {lenient:19} {rates}"
    if r.samples > 1:
        shown = (f"{name} {_by_k(values)}" for name, values in (("pass", r.pass_at), ("majority", r.majority_at)))
        yield f"  {'; '.join(shown)}"
    if r.failed:
        yield f"  {r.failed} completions were refused by the engine and count as wrong"


def _any_temperature_lines(a: AnyTemperature) -> Iterator[str]:
    several = len(a.temperatures) > 1
    which = f"at any of {len(a.temperatures)} temperatures" if several else "ever"
    lenient = _interval(a.accuracy_punctuation_free, a.punctuation_free_ci_low, a.punctuation_free_ci_high)
    right = f"{_interval(a.accuracy, a.ci_low, a.ci_high)}; punctuation-free {lenient}"
    yield f"{a.model} ({a.prompting}), right {which}, {a.completions} completions a problem: {right}"
    voted = _interval(a.majority, a.majority_ci_low, a.majority_ci_high)
    yield f"{a.model} ({a.prompting}), majority of all {a.completions} completions: {voted}"


def _difference(c: Compared | ComparedWays) -> str:
    least = "" if c.smallest_difference is None else f"; {c.smallest_difference:.1%} could have been shown"
    ends = f"[{c.ci_low:+.1%}, {c.ci_high:+.1%}], p {c.p_holm:.2g} (Holm){least}"
    return f"{c.verdict}, {c.difference:+.1%} {ends}"


def _interval(estimate: float, low: float, high: float) -> str:
    return f"{100 * estimate:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"


def _by_k(values: Mapping[int, float]) -> str:
    return ", ".join(f"@{k} {value:.1%}" for k, value in values.items())
