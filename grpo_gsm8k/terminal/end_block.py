"""The last lines of a training run: what came out of it, where it is, and what to type next."""

from __future__ import annotations

import shutil
import sys
import textwrap
from typing import TYPE_CHECKING, Any, TextIO

from grpo_gsm8k.terminal.durations import dollars, duration
from grpo_gsm8k.terminal.next_commands import fold, next_commands
from grpo_gsm8k.terminal.plain_console import print_line
from grpo_gsm8k.terminal.run_fields import accuracy, number

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from grpo_gsm8k.terminal.next_commands import FinishedTraining

CHANGES = {
    "higher": "higher: the 95 % intervals do not overlap",
    "lower": "lower: the 95 % intervals do not overlap",
    "none shown": "no difference shown: the 95 % intervals overlap",
}


def print_end(
    summary: Mapping[str, Any],
    run: FinishedTraining,
    report: Path | None,
    program: str,
    warnings: Sequence[str] = (),
    stream: TextIO | None = None,
) -> None:
    """Print the summary of a run, its paths, warnings and the next commands."""
    out = sys.stdout if stream is None else stream
    width = shutil.get_terminal_size().columns if out.isatty() else None
    for line in end_lines(summary, run, report, program, width, warnings):
        print_line(out, line)


def end_lines(
    summary: Mapping[str, Any],
    run: FinishedTraining,
    report: Path | None,
    program: str,
    width: int | None,
    warnings: Sequence[str] = (),
) -> list[str]:
    """Return the lines of `print_end`; texts are folded to `width` columns, None: one line for each."""
    rows = [*(_results(summary) if summary["steps"] else []), *_paths(summary, run, report)]
    commands = next_commands(run, program)
    size = max(len(label) for label, _ in [*rows, *commands])
    lines = ["", _headline(summary), *_table(rows, size)]
    for warning in warnings:
        lines += ["", *(textwrap.wrap(warning, width, break_long_words=False) if width else [warning])]
    lines += ["", "next:"] if commands else []
    for label, command in commands:
        folded = [command] if width is None else fold(command, width - size - 2, "  ")
        lines += _table([(label if i == 0 else "", part) for i, part in enumerate(folded)], size)
    return lines


def _headline(summary: Mapping[str, Any]) -> str:
    usd = (summary.get("outcome") or {}).get("usd")
    price = "" if usd is None else f", {dollars(usd)}"
    took = duration(summary["wall_seconds"])
    return f"{summary['status']}: {summary['steps']} of {summary['total_steps']} updates in {took}{price}"


def _results(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    first, last, best = (summary[f"{which}_validation"] for which in ("first", "last", "best"))
    rows = []
    if last is None:
        rows.append(("accuracy", "no validation"))
    elif first["version"] == last["version"]:
        rows.append(("accuracy", _validated(last)))
    else:
        rows += [("at start", _validated(first)), ("at end", _validated(last))]
        rows.append(("change", CHANGES.get(summary["change"], "unknown: there are no intervals")))
    if best is not None and best["version"] != last["version"]:
        rows.append(("best", _validated(best)))
    rows.append(("speed", _speed(summary)))
    restarts = {worker: count for worker, count in summary["restarts"].items() if count}
    if restarts:
        rows.append(("restarts", ", ".join(f"{worker} {count}" for worker, count in restarts.items())))
    return [*rows, *_expected(summary)]


def _speed(summary: Mapping[str, Any]) -> str:
    idle = ", ".join(
        f"{worker} {number(summary[f'{worker}_idle_frac_mean'], '.0%')}" for worker in ("actor", "learner")
    )
    return f"{number(summary['tokens_per_s_mean'], '.0f')} tokens/s, idle: {idle}"


def _expected(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return rows that compare estimated and measured time and cost, if there was an estimate."""
    made = (summary.get("estimate") or {}).get("initial")
    took = summary.get("outcome")
    if made is None or took is None or took["step_s"] is None:
        return []
    price = "" if made["usd"] is None else f", {dollars(made['usd'])}"
    return [
        ("per update", f"{duration(took['step_s'])} (estimated: {duration(made['step_s'])})"),
        ("estimated", f"{duration(made['hours'] * 3600)} in total{price}"),
    ]


def _paths(summary: Mapping[str, Any], run: FinishedTraining, report: Path | None) -> list[tuple[str, str]]:
    rows = [("run folder", str(run.folder))]
    if run.checkpoint is not None and run.checkpoint != run.newest:
        rows += [("best model", str(run.checkpoint)), ("newest", str(run.newest))]
    elif run.checkpoint is not None:
        rows.append(("checkpoint", str(run.checkpoint)))
    if report is not None:
        rows.append(("report", str(report.absolute())))
    if summary["status"] == "failed":
        rows.append(("logs", str(run.folder / "logs")))
    return rows


def _table(rows: Sequence[tuple[str, str]], size: int) -> list[str]:
    return [f"{label:<{size}}  {text}".rstrip() for label, text in rows]


def _validated(record: Mapping[str, Any]) -> str:
    return f"{accuracy(record, '')} at update {record['version']}"
