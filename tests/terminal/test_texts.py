"""Durations, money, curves, and text of models that must not control the terminal."""

from __future__ import annotations

import pytest

from grpo_gsm8k.terminal.durations import dollars, duration
from grpo_gsm8k.terminal.safe_text import encodable, one_line, safe_text, shortened
from grpo_gsm8k.terminal.sparkline import ASCII, sparkline


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *((0, "0.0 s"), (-1, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (59.4, "59 s"), (59.6, "1 min 00 s")),
        *((206, "3 min 26 s"), (3599.7, "1 h 00 min"), (7500, "2 h 05 min"), (90000, "25 h 00 min")),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_dollars() -> None:
    assert [dollars(usd) for usd in (0, 0.0031234, 0.02, 12.345)] == ["$0.00", "$0.0031", "$0.02", "$12.35"]


def test_no_character_of_a_text_controls_the_terminal() -> None:
    text = "a\x1b[2Jb\x07c\u202ed\u200be\x9bf\r\ng\th\x7f\ud800"
    assert safe_text(text) == "a\\x1b[2Jb\\x07c\\u202ed\\u200be\\x9bf\ng   h\\x7f\\ud800"
    assert one_line(" a\n\n b\x1b ") == "a b\\x1b"
    assert safe_text("[bold]kosu şü 数 é") == "[bold]kosu şü 数 é"


def test_text_fits_its_place_and_its_encoding() -> None:
    assert encodable("koşu", "ascii") == "ko\\u015fu"
    assert encodable("koşu", None) == "ko\\u015fu"
    text = "".join(str(i % 10) for i in range(100))
    for size in (0, 3, 5, 6, 20, 99, 100):
        short = shortened(text, size)
        assert len(short) <= size
        assert size < 20 or short[0] == "0"
        assert size < 20 or short[-1] == "9"


def test_a_curve_spans_its_values_and_keeps_to_its_width() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], 20) == "▁▂▃▄▅▆▇█"
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], 20, ASCII) == ASCII
    assert sparkline([0.0, 0.0, 1.0, 1.0], 2) == "▁█"
    assert len(sparkline([float(i) for i in range(1000)], 33)) == 33
    assert len(set(sparkline([5.0, 5.0, 5.0], 9))) == 1
    assert (sparkline([], 9), sparkline([1.0], 0)) == ("", "")
