"""The live display: what it shows at which size, and that text of a model cannot break it."""

from __future__ import annotations

import io
import re
import time
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from grpo_gsm8k.terminal.console import open_console
from grpo_gsm8k.terminal.live_console import LiveConsole
from grpo_gsm8k.terminal.live_view import live_view
from grpo_gsm8k.terminal.plain_console import PlainConsole
from grpo_gsm8k.terminal.run_state import RunState
from tests.terminal.records import sample, update, validation

NONE = Path("/does/not/exist.parquet")
HISTORY = [record for n in range(1, 13) for record in (update(n), *([validation(n, n / 20)] if n % 3 == 0 else []))]


class FakeTerminal(io.StringIO):
    encoding = "utf-8"  # type: ignore[assignment]

    def isatty(self) -> bool:
        return True


def running(**others: float) -> RunState:
    """A run of 30 updates, 100 seconds after its start, with a price of 3.6 dollars an hour."""
    state = RunState(30, 0.0, 3.6).with_history([validation(0, 0.1), *HISTORY], 0.0)
    return state.with_update(13, update(13, **others), [sample()])


def lines(state: RunState, width: int = 80, height: int = 24, ascii_only: bool = False) -> list[str]:
    """The display as plain text."""
    out = io.StringIO()
    console = Console(file=out, width=width, height=height, highlight=False, legacy_windows=False)
    console.print(live_view(state, width, height, 100.0, ascii_only))
    return out.getvalue().splitlines()


def test_everything_that_the_run_measures_is_shown() -> None:
    text = "\n".join(lines(running()))
    wide = "\n".join(lines(running(), 120))
    assert re.search(r"update 13/30 .* 1 min 40 s \| ETA 1 min 08 s \| \$0\.10", text)
    assert re.search(r"reward +0\.325  ▁.*█", text)
    history = r"60\.0 % \[56\.0, 64\.0\] at update 12  ▁.*█  3: 15\.0, 6: 30\.0, 9: 45\.0"
    assert re.search(rf"validation +{history}", wide)
    for label, value in (
        *(("loss", "-1.23e-05"), ("KL (reference)", "0.00123"), ("KL (update)", "4.24e-06"), ("entropy", "0.0672")),
        *(("length", "123 tokens"), ("learning rate", "4e-05"), ("tokens/s", "1841"), ("staleness", "0.9, at most 1")),
        ("idle", "actor 15 %, learner 2 %"),
    ):
        assert re.search(rf"{re.escape(label)} +{re.escape(value)}", text), label
    assert "completion at update 12: reward 1.1, answer 7, gold 7" in text
    assert "│ 3 + 4 = 7 " in text


@pytest.mark.parametrize("width", [20, 40, 60, 80, 120, 200])
@pytest.mark.parametrize("height", [10, 16, 24, 40])
def test_the_display_fits_the_terminal(width: int, height: int) -> None:
    long = sample("\n".join(f"{number}: " + "koşu 数" * 50 for number in range(40)))
    state = running().with_update(14, update(14), [long] * 3).with_phase("validation at update 14", 90.0)
    shown = lines(state, width, height)
    assert max(cell_len(line) for line in shown) <= width - 2
    assert max(cell_len(line) for line in shown) <= 120
    assert len(shown) <= height or height < 16
    text = "\n".join(shown)
    assert "update 14/30" in text
    assert "60.0" in text or width < 40
    assert ("completion" in text) == (height >= 24) or height == 16


def test_phases_of_the_start_are_shown_with_their_seconds() -> None:
    state = RunState(30, 0.0).with_phase("loading weights", 88.0).with_phase("starting the engine", 30.0)
    assert lines(state) == ["loading weights ... 12 s", "starting the engine ... 1 min 10 s"]
    assert lines(state.without_phase("loading weights")) == ["starting the engine ... 1 min 10 s"]


def test_a_model_cannot_control_the_terminal_or_the_markup() -> None:
    evil = "[bold]x[/bold] \x1b[2J\x1b]0;title\x07 [link=http://x]y[/link] \u202e :smile:\r\x08"
    out = io.StringIO()
    console = Console(file=out, width=120, height=40, force_terminal=True, color_system=None, legacy_windows=False)
    console.print(live_view(running().with_update(14, update(14), [sample(evil)]), 120, 40, 100.0))
    assert "[bold]x[/bold] \\x1b[2J\\x1b]0;title\\x07 [link=http://x]y[/link] \\u202e :smile:\\r\\x08" in out.getvalue()
    assert not set(out.getvalue()) & {"\x1b", "\x07", "\r", "\x08", "\u202e"}


def test_a_long_completion_keeps_its_end() -> None:
    text = "\n".join(f"line {number}" for number in range(100))
    shown = "\n".join(lines(running().with_update(14, update(14), [sample(text)]), 80, 24))
    assert "line 0 " in shown
    assert "line 99 " in shown
    assert "line 50 " not in shown


def test_ascii_terminals_get_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="ascii")
    monkeypatch.setattr(out, "isatty", lambda: True, raising=False)
    shown = open_console(30, 1, None, out)
    shown.history(HISTORY, 5.0)
    shown.note("koşu")
    shown.close()
    state = running().with_update(14, update(14), [sample("koşu")])
    console = Console(file=out, width=80, height=24, force_terminal=True)
    console.print(live_view(state, 80, 24, 100.0, ascii_only=console.options.ascii_only))
    out.flush()
    text = raw.getvalue().decode("ascii")
    assert text.count("ko\\u015fu") == 2
    assert "+- completion at update 12" in text


def test_fine_tuning_shows_perplexity_and_token_accuracy() -> None:
    metrics = {"train/perplexity": 3.21, "train/token_accuracy": 0.876, "train/loss": 1.17, "train/tokens_per_s": 99.0}
    text = "\n".join(lines(RunState(30, 0.0).with_update(1, metrics).with_validation(0, validation(0, None))))
    assert re.search(r"perplexity +3\.210", text)
    assert re.search(r"token accuracy +87\.6 %", text)
    assert re.search(r"tokens/s +99", text)
    assert re.search(r"validation +- at update 0", text)
    assert "reward" not in text
    assert "staleness" not in text


def test_values_that_are_not_finite_are_a_dash() -> None:
    text = "\n".join(lines(running(**{"train/loss": None, "train/reward_mean": None})))  # type: ignore[arg-type]
    assert re.search(r"loss +-( |$)", text, re.MULTILINE)


def test_a_rollback_takes_the_history_back() -> None:
    state = running().with_history(HISTORY[:4], 50.0)
    assert (state.update, len(state.curve), state.validations[-1][0], state.samples) == (3, 3, 3, ())
    assert state.eta is None
    assert state.elapsed(100.0) == 50.0


def test_a_validation_shows_its_answers_until_an_update_has_completions() -> None:
    answer, completion = sample(of="validation", version=0), sample(version=1)
    state = RunState(30, 0.0).with_validation(0, validation(0, 0.5), [answer])
    assert state.samples == (answer,)
    state = state.with_update(1, update(1), [completion])
    assert state.with_validation(1, validation(1, 0.5), [answer]).samples == (completion,)
    assert state.with_update(2, update(2), []).samples == (completion,)


@pytest.mark.parametrize(
    ("term", "tty", "live"),
    [
        ("xterm", True, True),
        ("dumb", True, False),
        ("", True, False),
        ("unknown", True, False),
        ("xterm", False, False),
    ],
)
def test_only_a_capable_terminal_gets_the_live_display(
    monkeypatch: pytest.MonkeyPatch, term: str, tty: bool, live: bool
) -> None:
    monkeypatch.setenv("TERM", term)
    monkeypatch.setenv("FORCE_COLOR", "1")
    out = FakeTerminal() if tty else io.StringIO()
    shown = open_console(30, 1, None, out)
    assert isinstance(shown, LiveConsole if live else PlainConsole)
    shown.begin("loading weights")
    shown.end("loading weights", 12.0)
    shown.history([update(1)], 5.0)
    shown.update(2, update(2), NONE)
    shown.validating(2)
    shown.validation(2, validation(2, 0.5), NONE)
    shown.note("actor [restarted]")
    shown.total(40)
    shown.close()
    shown.close()
    text = out.getvalue()
    assert ("\x1b" in text) == live
    for expected in ("loading weights ... 12 s\n", "50.0 % [46.0, 54.0]", "actor [restarted]"):
        assert expected in text
    if live:
        assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")  # the cursor is visible again
        assert "update 2/40" in text


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    def drawn() -> str:
        out = FakeTerminal()
        shown = open_console(30, 1, None, out)
        shown.update(2, update(2), NONE)
        shown.close()
        return out.getvalue()

    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    colored = re.compile(r"\x1b\[[0-9;]*3[0-7](;[0-9]+)*m")
    assert colored.search(drawn())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not colored.search(drawn())


def test_drawing_a_long_run_takes_no_time() -> None:
    records = [update(number) for number in range(1, 5001)]
    state = RunState(10000, 0.0).with_history(records, 0.0)
    started = time.process_time()
    lines(state)
    assert time.process_time() - started < 0.5
