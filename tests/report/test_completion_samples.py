"""The sampled completions in a page: which, how many, how large, and inert."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest

from grpo_gsm8k.report import collect
from grpo_gsm8k.report.completion_samples import HEAD, TAIL, completion_samples, far_apart, page_bytes, shortened
from grpo_gsm8k.report.render import render_html
from grpo_gsm8k.report.write_report import build
from tests.report import recorded
from tests.report import runs as made

HOSTILE = "</script><script>alert(1)</script><!--<script> & 'x' \u2028 ]]> <img src=x onerror=alert(1)>"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return made.training(tmp_path / "runs", "one")


def test_hostile_text_stays_inside_the_data(folder: Path) -> None:
    rows = [recorded.row(HOSTILE, False, HOSTILE, question=HOSTILE, gold=HOSTILE, extracted=HOSTILE)]
    recorded.rollouts(folder, 1, rows)
    page = render_html(build(collect.collect([folder], None), 2.0, "Title"))
    assert "alert(1)</script>" not in page
    assert "<img src=x" not in page
    assert "<!--" not in page.split('id="figures"')[1].split("<script>")[0]
    start = page.index('<script type="application/json" id="details">')
    text = page[start:].split(">", 1)[1].split("</script>")[0]  # where an HTML parser ends the element
    assert not set("<>&'\u2028") & set(text)
    (row,) = json.loads(text)["completions"]
    assert (row["question"], row["text"], row["gold"], row["read"], row["id"]) == (HOSTILE,) * 5


def test_rows_have_all_that_was_recorded(folder: Path) -> None:
    recorded.rollouts(folder, 3, [recorded.row("a", True, version_min=1, version_max=2, reward_format=0.1)])
    samples = completion_samples([collect.read_run(folder, "one")])
    assert samples is not None
    (row,) = samples.rows
    assert row == {
        "run": 0,
        "update": 3,
        "id": "a",
        "question": "What is a?",
        "gold": "7",
        "text": "It is so.",
        "read": "7",
        "kind": "correct",
        "reward": 1.0,
        "parts": {"correct": 1.0, "format": 0.1},
        "advantage": 0.5,
        "versions": [1, 2],
        "length": 3,
        "finish": "stop",
    }
    assert samples.caption == (
        "1 of 1 recorded completions are in this page, from 1 of 1 updates; all are in rollouts/ of the run folder."
    )


def test_numbers_and_bytes_are_limited_and_named(folder: Path) -> None:
    for update in range(1, 101):
        recorded.rollouts(folder, update, [recorded.row(f"q{i}", i % 3 == 0, "<x>" * 300) for i in range(16)])
    run = collect.read_run(folder, "one")
    samples = completion_samples([run], most_rows=60, most_bytes=300_000)
    assert samples is not None
    assert len(samples.rows) == 60
    assert {row["update"] for row in samples.rows} >= {1, 100}
    assert samples.caption.startswith("60 of 1,600 recorded completions are in this page, from 20 of 100 updates")
    small = completion_samples([run], most_rows=60, most_bytes=60_000)
    assert small is not None
    assert 10 <= len(small.rows) < 20
    assert sum(map(page_bytes, small.rows)) <= 60_000
    updates = [row["update"] for row in small.rows]
    assert updates == sorted(set(updates))  # one row each
    assert {updates[0], updates[-1]} == {1, 100}
    assert max(later - one for one, later in pairwise(updates)) <= 16  # the limit costs no part of the run
    assert {row["kind"] for row in samples.rows} == {"correct", "format"}


def test_an_order_that_is_spread_from_its_beginning() -> None:
    assert far_apart(1) == [0]
    assert far_apart(9) == [0, 8, 4, 2, 6, 1, 5, 3, 7]


def test_two_runs_share_the_limits(tmp_path: Path) -> None:
    folders = [made.training(tmp_path / "runs", name) for name in ("a", "b", "c")]
    for folder in folders[:2]:
        recorded.rollouts(folder, 1, [recorded.row(f"q{i}", True) for i in range(50)])
    samples = completion_samples([collect.read_run(f, f.name) for f in folders], most_rows=20)
    assert samples is not None
    assert [sum(row["run"] == run for row in samples.rows) for run in (0, 1)] == [10, 10]
    assert len(samples.runs) == 2


def test_the_middle_of_a_long_text_is_left_out_and_counted(folder: Path) -> None:
    long = "a" * HEAD + "b" * 345 + "c" * TAIL
    assert shortened(long) == ["a" * HEAD, 345, "c" * TAIL]
    assert shortened(long[:-345]) == long[:-345]
    recorded.rollouts(folder, 1, [recorded.row("q", True, long)])
    samples = completion_samples([collect.read_run(folder, "one")])
    assert samples is not None
    assert samples.caption.endswith("Of 1 texts, the middle is left out, with the number of characters in its place.")


def test_a_size_in_the_page_is_not_underestimated() -> None:
    from jinja2.utils import htmlsafe_json_dumps

    row = recorded.row("q", True, HOSTILE * 3)
    assert page_bytes(row) >= len(htmlsafe_json_dumps(row).encode())


def test_unreadable_and_older_files(folder: Path) -> None:
    older = {"prompt_id": "q", "question": "?", "gold_number": "7", "text": "t", "kind": "logic"}
    recorded.rollouts(folder, 1, [older])
    (folder / "rollouts" / "step_2.parquet").write_bytes(b"PAR1 half")
    (folder / "rollouts" / "step_3.parquet.tmp").write_bytes(b"")
    samples = completion_samples([collect.read_run(folder, "one")])
    assert samples is not None
    (row,) = samples.rows
    assert (row["gold"], row["advantage"], row["versions"], row["parts"]) == ("7", None, [None], {})
    assert completion_samples([]) is None
