from __future__ import annotations

import pickle

import pytest

from grpo_gsm8k.errors import LabError, UserError, one_line


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a  b", "a  b"),
        ("a \r\n\t b\n", "a b"),
        ("a\u2028b\u00a0c", "a b c"),
        ("\x1b[31mred\x00", "\\x1b[31mred\\x00"),
        ("\ud800 \u200b \ufeff", "\\ud800 \\u200b \\ufeff"),
        ("ığüşöç 😀", "ığüşöç 😀"),
        ("", ""),
    ],
)
def test_the_text_of_an_error_is_one_line(text: str, shown: str) -> None:
    assert one_line(text) == shown
    assert str(UserError(text)) == shown
    assert str(pickle.loads(pickle.dumps(LabError(text)))) == shown  # noqa: S301 - our own bytes
