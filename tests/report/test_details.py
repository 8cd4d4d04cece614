"""The detailed parts in the page and in report.md, and the opening of an evaluation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from grpo_gsm8k.report import collect
from grpo_gsm8k.report.render import Report, render_html, render_markdown
from grpo_gsm8k.report.write_report import build
from tests.report import recorded
from tests.report import runs as made

SECTIONS = ("completions", "over-training", "timeline")


def report(*folders: Path) -> Report:
    return build(collect.collect(folders, None), 2.0, "Title")


def data(page: str) -> dict[str, Any]:
    text = page.split('<script type="application/json" id="details">')[1].split("</script>")[0]
    found: dict[str, Any] = json.loads(text)
    return found


def test_a_run_has_each_part_once_and_in_words(tmp_path: Path) -> None:
    folder = made.training(tmp_path / "runs", "one")
    recorded.rollouts(folder, 1, [recorded.row("a", True), recorded.row("a", False)])
    recorded.timeline(folder, 6)
    page = render_html(found := report(folder))
    for section in SECTIONS:
        assert page.count(f'<section id="{section}">') == 1
        assert page.count(f'href="#{section}"') == 1
    drawn = data(page)
    assert [len(drawn[name]) for name in ("timelines", "completions", "rates", "histories")] == [1, 2, 1, 1]
    assert drawn["kinds"] == {"correct": "right", "format": "no readable result"}
    words = render_markdown(found)
    assert "2 of 2 recorded completions" in words
    assert "of 20 items: 5 stayed right, 5 became right, 0 became wrong, 10 stayed wrong" in words
    assert "learner: wait for the engine" in words


def test_parts_that_were_not_recorded_are_left_out(tmp_path: Path) -> None:
    page = render_html(report(made.evaluation(tmp_path / "runs")))
    assert not [section for section in SECTIONS if f"#{section}" in page or f'id="{section}"' in page]
    assert data(page) == {"timelines": [], "completions": [], "kinds": {}, "rates": [], "histories": []}


def test_an_evaluation_opens_with_its_accuracies(tmp_path: Path) -> None:
    alone = render_html(report(made.evaluation(tmp_path / "runs")))
    bars, table = alone.index('id="accuracies"'), alone.index('<section id="evaluations">')
    assert alone.index("<h2>Results</h2>") < bars < alone.index("<table") < table
    assert alone.count('id="accuracies"') == 1
    both = render_html(report(made.training(tmp_path / "runs", "one"), *(tmp_path / "runs").glob("*_eval")))
    assert both.index('<section id="evaluations">') < both.index('id="accuracies"')


def test_a_table_of_evaluations_has_no_empty_columns(tmp_path: Path) -> None:
    columns = report(made.evaluation(tmp_path / "runs")).tables[0].columns
    assert "Accuracy" in columns
    assert "Pass@k" not in columns


def test_many_runs_keep_to_the_limit_of_the_page(tmp_path: Path) -> None:
    folders = [made.training(tmp_path / "runs", f"run{number}") for number in range(6)]
    for folder in folders:
        for update in range(1, 31):
            rows = [recorded.row(f"q{i // 8}", i % 3 == 0, "long text " * 150) for i in range(64)]
            recorded.rollouts(folder, update, rows)
        recorded.timeline(folder, 300, actors=4)
    page = render_html(report(*folders))
    assert len(page.split('id="details">')[1].split("</script>")[0]) < 350_000
    assert {row["run"] for row in data(page)["completions"]} == set(range(6))
    assert all(len(chart["bars"]) <= 1500 // 6 for chart in data(page)["timelines"])
