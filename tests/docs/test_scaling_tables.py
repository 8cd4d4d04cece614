"""Some cells of the tables in docs/scaling.md are computed again; `make scaling-tables ARGS=--check`: all of them."""

from __future__ import annotations

from dataclasses import replace

from grpo_gsm8k.planning.estimated_rates import on_gpus
from grpo_gsm8k.planning.memory_plan import CARDS, memory_rows
from grpo_gsm8k.planning.qwen_shapes import QWEN
from grpo_gsm8k.planning.simulate import Size
from grpo_gsm8k.preflight.memory import gib
from scripts import scaling_reference


def test_predictions_are_current() -> None:
    config, card = scaling_reference.settings(), scaling_reference.CARD
    pipeline = on_gpus(QWEN[scaling_reference.MODEL], config, card, card, card.name)
    network = replace(pipeline.network, engines_per_machine=scaling_reference.ENGINES_PER_MACHINE)
    pipeline = replace(pipeline, network=network)
    page = scaling_reference.PAGE.read_text(encoding="utf-8")
    part = page.partition("Network of 10 Gbit/s")[2].partition("Network of 100 Gbit/s")[0]
    for staleness, actors in ((0, 1), (1, 16)):
        cells = next(line.split("|") for line in part.splitlines() if line.startswith(f"| {staleness} "))
        column = 3 + scaling_reference.ACTORS.index(actors)
        assert cells[column].strip() == scaling_reference.cell(config, pipeline, Size(actors, 1, staleness, 10.0))


def test_memory_is_current() -> None:
    """Little of it fits the smallest card, and what does not fit is not simulated."""
    page = scaling_reference.PAGE.read_text(encoding="utf-8")
    for words in scaling_reference.MEMORY_SETTINGS.values():
        part = page.partition(f"3B, {next(k for k, v in scaling_reference.MEMORY_SETTINGS.items() if v == words)} (")[2]
        for row in memory_rows(QWEN["3B"], scaling_reference.settings(*words), cards=CARDS[:1]):
            assert f" {row.division.shard} " in part
            assert f" {gib(row.rank_bytes)} " in part.partition("7B, ")[0]


def test_a_table_replaces_the_one_between_its_comments() -> None:
    page = "a\n<!-- memory: x -->\nold\n<!-- end of memory -->\nb\n"
    assert scaling_reference.with_tables(page, {"memory": ["new"]}) == page.replace("old", "new")
