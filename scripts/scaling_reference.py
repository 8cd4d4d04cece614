"""Generate the tables of predictions in docs/scaling.md.

Usage: python -m scripts.scaling_reference [--check]

Takes about two minutes. With --check nothing is written, and the exit code is 1 if the page is not current.
"""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from grpo_gsm8k.config import parse_config
from grpo_gsm8k.planning.estimated_rates import on_gpus
from grpo_gsm8k.planning.memory_plan import memory_rows
from grpo_gsm8k.planning.plan import ACTORS, GBIT_S
from grpo_gsm8k.planning.plan_tables import memory_table, table
from grpo_gsm8k.planning.qwen_shapes import QWEN
from grpo_gsm8k.planning.simulate import Size, predict
from grpo_gsm8k.preflight.devices import by_name
from grpo_gsm8k.tracking.saved_config import compose_values

if TYPE_CHECKING:
    from collections.abc import Mapping

    from grpo_gsm8k.config import Config
    from grpo_gsm8k.planning.rates import Pipeline

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "scaling.md"
STALENESS = (0, 1, 2, 4)
RANKS = (1, 2, 4, 8)
ENGINES_PER_MACHINE = 8
UPDATES = 3  # of constant rates: more would only average over lengths
MODEL, CARD = "1.5B", by_name("h100-80gb")
# Validations are left out: how often they come is up to the run.
SETTINGS = (
    "command=policy_gradient",
    "policy_gradient.eval_every=100000",
    "policy_gradient.eval_limit=1",
    "policy_gradient.save_every=100000",
)
MEMORY_SETTINGS = {
    "all weights": ("learner.gradient_checkpointing=true",),
    "LoRA": ("learner=lora", "learner.gradient_checkpointing=true"),
}


def with_tables(page: str, tables: Mapping[str, list[str]]) -> str:
    """Return the page with these tables between its comments that name them."""
    for name, lines in tables.items():
        found = re.search(rf"(<!-- {name}: [^\n]*-->\n).*?(<!-- end of {name} -->)", page, re.DOTALL)
        assert found is not None, name
        page = page[: found.end(1)] + "\n".join([*lines, ""]) + page[found.start(2) :]
    return page


def settings(*words: str) -> Config:
    """Return the configuration that the tables are computed for."""
    return parse_config(compose_values([*SETTINGS, *words]))


def predictions() -> list[str]:
    """Return a table for each network: a row for each staleness and number of ranks, a column for engines."""
    config = settings()
    pipeline = on_gpus(QWEN[MODEL], config, CARD, CARD, CARD.name)
    pipeline = replace(pipeline, network=replace(pipeline.network, engines_per_machine=ENGINES_PER_MACHINE))
    lines = [""]
    for speed in GBIT_S:
        head = ["staleness", "ranks", *(str(actors) for actors in ACTORS)]
        rows = [
            [str(staleness), str(ranks), *(cell(config, pipeline, Size(n, ranks, staleness, speed)) for n in ACTORS)]
            for staleness in STALENESS
            for ranks in RANKS
        ]
        lines += [f"Network of {speed:g} Gbit/s, by number of engines:", "", *table(head, rows), ""]
    return lines


def cell(config: Config, pipeline: Pipeline, size: Size) -> str:
    """Return updates per hour, and the idle shares of learner and engines in percent."""
    state = predict(config, pipeline, size, UPDATES)
    return f"{state.updates_per_hour:.0f} ({100 * state.learner_idle:.0f}/{100 * state.engines_idle:.0f})"


def memory() -> list[str]:
    """Return a table for each model and way to train it."""
    lines = [""]
    for name, shape in QWEN.items():
        for way, words in MEMORY_SETTINGS.items():
            rows = memory_rows(shape, settings(*words))
            lines += [f"{name}, {way} (`{' '.join(words)}`):", "", *memory_table(rows), ""]
    return lines


def main(arguments: list[str]) -> int:
    """Write the page, or compare it; returns the exit code."""
    tables = {"predictions": predictions(), "memory": memory()}
    before = PAGE.read_text(encoding="utf-8")
    after = with_tables(before, tables)
    if "--check" in arguments:
        print(f"docs/{PAGE.name} is {'' if after == before else 'not '}current")
        return int(after != before)
    PAGE.write_text(after, encoding="utf-8")
    print(PAGE.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
