"""Plans as tables in Markdown, for the terminal and for docs/scaling.md."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from grpo_gsm8k.planning.memory_plan import CARDS
from grpo_gsm8k.planning.plan import GAIN, GBIT_S, LEARNER_BOUND
from grpo_gsm8k.preflight.memory import gib

if TYPE_CHECKING:
    from collections.abc import Sequence

    from grpo_gsm8k.config import Config
    from grpo_gsm8k.planning.memory_plan import MemoryRow
    from grpo_gsm8k.planning.plan import EnginePlan
    from grpo_gsm8k.planning.rates import Pipeline


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan, what it was computed from, and what fits which GPUs; no rows for a learner on the CPU."""

    config: Config
    pipeline: Pipeline
    plan: EnginePlan
    memory: list[MemoryRow]


def plan_lines(planned: Planned) -> list[str]:
    """Return the whole plan: where its rates are from, the table of engines, the answer, and what fits."""
    config, pipeline = planned.config, planned.pipeline
    staleness, ranks = config.policy_gradient.max_staleness, pipeline.learner.ranks
    first = f"Rates: {pipeline.source}. policy_gradient.max_staleness={staleness}, learner of {ranks} rank"
    lines = [first + ("s" if ranks > 1 else "") + ".", "", *engine_table(planned.plan), "", answer(planned.plan)]
    if planned.memory:
        lines += ["", "Updates per hour where it fits, by memory of each card:", "", *memory_table(planned.memory)]
    return lines


def engine_table(plan: EnginePlan) -> list[str]:
    """Return a row for each number of engines; in a cluster also the updates per hour over each network."""
    networks = [f"over {speed:g} Gbit/s" for speed in GBIT_S] if plan.rows[0].over_network else []
    rows = [
        [
            str(row.actors),
            f"{row.state.updates_per_hour:.4g}",
            f"{row.state.learner_idle:.0%}",
            f"{row.state.engines_idle:.0%}",
            *(f"{state.updates_per_hour:.4g}" for state in row.over_network),
        ]
        for row in plan.rows
    ]
    return table(["engines", "updates/h", "learner idle", "engines idle", *networks], rows)


def answer(plan: EnginePlan) -> str:
    """Return the answer to the question how many engines this learner can use."""
    if plan.learner_bound is not None:
        return (
            f"With {plan.learner_bound} engines or more the learner is the limit: it waits for at most "
            f"{LEARNER_BOUND:.0%} of its time."
        )
    return (
        f"The learner waits for completions however many engines there are. Beyond {plan.enough}, further ones add "
        f"less than {GAIN:.0%} updates per hour."
    )


def memory_table(rows: Sequence[MemoryRow]) -> list[str]:
    """Return a row for each division of cards; `no`: a rank or an engine does not fit."""
    sizes = [f"{card.name} ({card.memory_gib:.0f} GiB)" for card in CARDS]
    cells = [
        [
            str(row.division.cards),
            f"{row.division.cards - row.division.ranks} + {row.division.ranks}",
            row.division.shard,
            gib(row.rank_bytes),
            *("no" if speed is None else f"{speed:.3g}" for speed in row.updates_per_hour),
        ]
        for row in rows
    ]
    return table(["GPUs", "engines + ranks", "learner.shard", "each rank", *sizes], cells)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a table in Markdown whose columns are aligned in a terminal, too."""
    widths = [max(len(cells[i]) for cells in [head, *rows]) for i in range(len(head))]
    lines = [
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |" for row in [head, *rows]
    ]
    return [lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]]
