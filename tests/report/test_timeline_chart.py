"""Bars and stretches of a recorded timeline."""

from __future__ import annotations

from pathlib import Path

import pytest

from grpo_gsm8k.report import collect
from grpo_gsm8k.report.timeline_chart import read_bars, timeline_charts
from tests.report import recorded
from tests.report import runs as made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return made.training(tmp_path / "runs", "one")


def test_a_short_run_is_drawn_whole_with_a_row_per_worker(folder: Path) -> None:
    recorded.timeline(folder, updates=12, actors=11)
    (chart,) = timeline_charts([collect.read_run(folder, "one")])
    actors = [f"actor-{number}" for number in range(11)]
    assert chart.rows == (*actors, "learner", "validations", "orchestrator")
    assert len(chart.bars) == 1 + 1 + 12 * (11 + 2) + 3  # the mark, the engine, updates, validations
    titles = [part.title for part in chart.stretches]
    assert titles == ["start, to the first update", "updates 1 to 12", "whole run"]
    assert (chart.stretches[1].start, chart.stretches[1].end) == pytest.approx((70.5, 94.0))
    assert "learner: wait for the engine 74.5 %, update 19.1 %, wait for rollouts 6.4 % of 1 min 34 s" in chart.words
    data = chart.page_data()
    first = data["bars"][1]
    assert [data["rows"][first[0]], data["names"][first[1]], *first[2:]] == [
        "learner",
        "wait for the engine",
        0,
        70_000,
        0,
    ]


def test_a_long_run_has_its_first_middle_and_last_updates(folder: Path) -> None:
    recorded.timeline(folder, updates=200)
    (chart,) = timeline_charts([collect.read_run(folder, "one")], most=120)
    titles = [part.title for part in chart.stretches]
    updates = ["first: updates 1 to 8", "middle: updates 97 to 104", "last: updates 193 to 200"]
    assert titles == ["start, to the first update", *updates]
    assert len(chart.bars) <= 120
    assert chart.caption.startswith(f"{len(chart.bars)} of 642 recorded spans and events")
    drawn = {bar.version for bar in chart.bars if bar.name == "update"}
    assert drawn >= {*range(8), *range(96, 104), *range(192, 200)}
    (chart,) = timeline_charts([collect.read_run(folder, "one")], most=50)
    assert [part.title for part in chart.stretches][1] == "first: updates 1 to 4"
    assert len(chart.bars) <= 50


def test_validations_that_overlap_get_rows_of_their_own(folder: Path) -> None:
    recorded.timeline(folder, updates=1)
    from grpo_gsm8k.tracking.timeline import Timeline

    trace = Timeline(folder / "trace.json")
    for version, end in ((5, 2000.0), (6, 2001.0), (7, 2008.0)):
        trace.validation(version, end, 5.0)
    trace.close()
    (chart,) = timeline_charts([collect.read_run(folder, "one")])
    rows = {bar.version: bar.row for bar in chart.bars if bar.name == "validation"}
    assert (rows[5], rows[6], rows[7]) == ("validations", "validations (2)", "validations")
    # 1995 to 2001, 2003 to 2008, and 3 s before: 14 of 1008 s
    assert "validations: validation 1.4 % of 16 min 48 s" in chart.words


def test_a_resumed_run_has_no_stretch_over_its_pause(folder: Path) -> None:
    recorded.timeline(folder, updates=4)
    from grpo_gsm8k.tracking.timeline import Timeline
    from grpo_gsm8k.transport.protocol import Span

    trace = Timeline(folder / "trace.json")
    trace.mark("start", 90_000.0, {"start_step": 4})
    for version in range(4, 8):
        trace.span("learner", Span("update", version, 90_010.0 + version, 1.0))
    trace.close()
    (chart,) = timeline_charts([collect.read_run(folder, "one")])
    assert [part.title for part in chart.stretches] == [
        "start, to the first update",
        "updates 1 to 4",
        "updates 5 to 8",
        "whole run",
    ]


def test_a_trace_that_is_being_written_is_read_as_far_as_it_goes(folder: Path) -> None:
    recorded.timeline(folder, updates=2)
    whole = read_bars(folder / "trace.json")
    text = (folder / "trace.json").read_bytes()
    for end in range(0, len(text), 37):
        (folder / "trace.json").write_bytes(text[:end])
        bars = read_bars(folder / "trace.json")
        assert [(bar.row, bar.name, bar.seconds) for bar in bars] == [
            (bar.row, bar.name, bar.seconds) for bar in whole if bar in bars
        ]
    (folder / "trace.json").unlink()
    assert timeline_charts([collect.read_run(folder, "one")]) == []
