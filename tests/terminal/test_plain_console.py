"""Plain mode: one short line per update, nothing that controls a terminal."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from grpo_gsm8k.terminal import plain_console
from grpo_gsm8k.terminal.plain_console import PlainConsole, update_line, validation_line
from grpo_gsm8k.terminal.run_state import RunState
from grpo_gsm8k.terminal.samples import read_samples
from tests.terminal.records import update, validation

NONE = Path("/does/not/exist.parquet")


def write(path: Path, texts: list[str]) -> Path:
    """A file of rollouts as the learner writes it, as far as a display reads it."""
    rows = [
        {"question": "3 + 4?", "gold": "7", "text": text, "extracted": None, "reward": 1.0, "tokens": [1]}
        for text in texts
    ]
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def test_one_short_line_per_update() -> None:
    state = RunState(30, 0.0, 3.6).with_update(12, update(12))
    line = update_line(state, 100.0)
    assert line == "update 12/30 | reward 0.300 | loss -1.23e-05 | 1841 tokens/s | ETA 1 min 12 s | $0.10"
    assert len(line) <= 90
    last = RunState(30, 0.0).with_update(30, update(30, **{"train/reward_mean": None}))
    assert update_line(last, 100.0) == "update 30/30 | loss -1.23e-05 | 1841 tokens/s"


def test_a_validation_is_compared_with_the_first() -> None:
    state = RunState(30, 0.0).with_validation(0, validation(0, 0.5))
    assert validation_line(state, 0) == "validation at update 0: 50.0 % [46.0, 54.0]"
    state = state.with_validation(10, validation(10, 0.75))
    after = "validation at update 10: 75.0 % [71.0, 79.0] (update 0: 50.0 % [46.0, 54.0])"
    assert validation_line(state, 10) == after


def test_lines_of_a_run(tmp_path: Path) -> None:
    raw = io.BytesIO()
    shown = PlainConsole(30, 1, None, io.TextIOWrapper(raw, encoding="ascii"))
    answers = write(tmp_path / "v.parquet", ["koşu \x1b[2J\n#### 7"])
    shown.validation(0, validation(0, 0.5), answers)
    shown.update(1, update(1), write(tmp_path / "u.parquet", ["[red]a"]))
    shown.validation(1, validation(1, 0.6), answers)
    shown.update(2, update(2), NONE)
    shown.validation(2, validation(2, 0.7), NONE)
    shown.close()
    out = raw.getvalue().decode("ascii").splitlines()
    assert out[1] == "sample at validation 0: reward 1, gold 7: ko\\u015fu \\x1b[2J #### 7"
    assert out[2].startswith("update 1/30 | reward 0.025 |")
    assert out[4] == "sample at update 1: reward 1, gold 7: [red]a"
    assert len(out) == 7  # without a file there is no sample
    assert "\x1b" not in raw.getvalue().decode("ascii")


def test_zero_samples_show_none(tmp_path: Path) -> None:
    out = io.StringIO()
    shown = PlainConsole(30, 0, None, out)
    shown.validation(0, validation(0, 0.5), write(tmp_path / "v.parquet", ["text"]))
    assert len(out.getvalue().splitlines()) == 1


def test_a_phase_is_named_while_it_lasts_if_it_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    shown = PlainConsole(30, 0, None, out)
    shown.begin("loading weights")
    shown.end("loading weights", 2.0)
    monkeypatch.setattr(plain_console, "LATE_SECONDS", 0.0)
    shown.begin("starting the engine")
    while "engine" not in out.getvalue():
        pass
    shown.end("starting the engine", 101.0)
    monkeypatch.undo()
    shown.begin("never ends")
    shown.close()
    text = "loading weights ... 2.0 s\nstarting the engine ...\nstarting the engine ... 1 min 41 s\n"
    assert out.getvalue() == text


def test_samples_are_drawn_at_random_but_always_the_same(tmp_path: Path) -> None:
    path = write(tmp_path / "u.parquet", [f"text {number}" for number in range(50)])
    drawn = {version: read_samples(path, "update", version, 1) for version in range(20)}
    assert drawn == {version: read_samples(path, "update", version, 1) for version in range(20)}
    assert len({samples[0].text for samples in drawn.values()}) > 10
    several = read_samples(path, "update", 3, 8)
    assert len({each.text for each in several}) == 8
    assert len(read_samples(write(tmp_path / "one", ["a"]), "update", 3, 8)) == 1
    assert re.fullmatch(r"text \d+", several[0].text)
    assert several[0].extracted == ""


def test_a_file_that_cannot_be_read_gives_no_sample(tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.parquet"
    damaged.write_bytes(b"PAR1 no")
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "other.parquet")
    for path in (NONE, damaged, tmp_path, tmp_path / "other.parquet"):
        assert read_samples(path, "update", 1, 1) == ()
