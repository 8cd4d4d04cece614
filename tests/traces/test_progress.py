from __future__ import annotations

import io
from decimal import Decimal

import pytest

from grpo_gsm8k.traces import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PLAIN_LINE_S", 0.01)
    out = io.StringIO()
    with progress.CollectionProgress(10, 4, Decimal("0.1"), out) as shown:
        shown.advance(False, Decimal("0.25"))
        shown.advance(True, Decimal("0.25"))
        while "failed" not in out.getvalue():
            pass
    last = out.getvalue().splitlines()[-1]
    assert last.startswith("5/10 samples, 1 failed | $0.2500 | ETA 0:")


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    out = Terminal()
    with progress.CollectionProgress(2, 0, Decimal(0), out) as shown:
        shown.advance(False, Decimal("0.5"))
        shown.advance(False, Decimal("0.5"))
    assert "2/2 samples | $0.5000" in out.getvalue()
