"""Counted work: plain lines without escape sequences, a bar on a terminal."""

from __future__ import annotations

import io

import pytest

from grpo_gsm8k.terminal import count_progress, stage
from grpo_gsm8k.terminal.count_progress import CountProgress


class FakeTerminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(count_progress, "PLAIN_LINE_S", 0.01)
    out = io.StringIO()
    with CountProgress("samples", 10, 4, out) as shown:
        shown.advance(1, "0 failed | $0.25")
        shown.advance(0, "1 failed | $0.25")
        while "1 failed" not in out.getvalue():
            pass
    lines = out.getvalue().splitlines()
    assert lines[-1].startswith("5/10 samples | 1 failed | $0.25 | ")
    assert " | ETA " in lines[-1]
    assert "\x1b" not in out.getvalue()


def test_a_fast_count_leaves_one_line() -> None:
    out = io.StringIO()
    with CountProgress("questions", 2, 0, out) as shown:
        shown.advance()
        shown.advance()
    (line,) = out.getvalue().splitlines()
    assert line.startswith("2/2 questions | ")
    assert "ETA" not in line


@pytest.mark.parametrize("term", ["xterm", "dumb"])
def test_a_terminal_gets_a_bar_unless_it_is_dumb(monkeypatch: pytest.MonkeyPatch, term: str) -> None:
    monkeypatch.setenv("TERM", term)
    out = FakeTerminal()
    with CountProgress("[bold]samples", 2, 0, out) as shown:
        shown.advance(2, "$0.50")
    assert "2/2 [bold]samples | $0.50" in out.getvalue()
    assert ("\x1b" in out.getvalue()) == (term == "xterm")


def test_a_long_stage_is_named_while_it_lasts_and_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "LATE_SECONDS", 0.0)
    monkeypatch.setattr(stage, "SHOWN_FROM", 0.0)
    out = io.StringIO()
    with stage.stage("getting the\x1b model", out):
        while not out.getvalue():
            pass
    assert out.getvalue() == "getting the\\x1b model ...\ngetting the\\x1b model ... 0.0 s\n"


def test_a_short_stage_and_a_failed_one_leave_no_line() -> None:
    out = io.StringIO()
    with stage.stage("preparing the data", out):
        pass
    with pytest.raises(ValueError, match="no"), stage.stage("preparing the data", out):
        raise ValueError("no")
    assert out.getvalue() == ""
