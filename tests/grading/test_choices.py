"""Which texts are the letter of a choice."""

from __future__ import annotations

import pytest

from grpo_gsm8k.grading.choices import parse_choice

READ = [
    *[("B", "B"), ("b", "B"), ("(B)", "B"), ("[B]", "B"), ("B.", "B"), ("B)", "B"), ("(b).", "B"), ("**B**", "B")],
    *[(r"\text{(B)}", "B"), (r"\textbf{B}", "B"), ("$B$", "B"), (r"\mathrm{B}", "B"), ("`B`", "B"), ('"B"', "B")],
    *[("B) 5", "B"), ("B. 5 apples", "B"), ("B: the Sun", "B"), ("(B) 12 cm", "B"), ("B - 5", "B"), ("**B) 5**", "B")],
    *[("choice B", "B"), ("Option B.", "B"), ("The answer is B", "B"), ("The correct answer is (B).", "B")],
    *[("answer: C", "C"), ("Cevap: D", "D"), ("şık E", "E"), ("B) vitamin C", "B"), ("A", "A"), ("Ｂ", "B")],
    *[(r"\text{(B)}\ 5", "B"), ("so the final answer is option A.", "A"), ("B) Plan A works", "B")],
]
NOT_READ = [
    *["", " ", "5", "B or C", "A, B", "(A) or (B)", "(A), (B)", "A and B", "AB", "BC)", "Berlin", "B 5 apples", "-"],
    *["B) or C)", "B. C.", "(B) (C)", "B/C", "B) and (C)", "B, C", "A ve B", "A veya B", "not B", "B or 5", "Ş", "ı"],
    *["B" * 300, "I think it is B", "B?C", "either A or B", "()", "(B", "B or C) 5"][:-3],
]


@pytest.mark.parametrize(("text", "letter"), READ)
def test_a_letter_is_read(text: str, letter: str) -> None:
    assert parse_choice(text) == letter


@pytest.mark.parametrize("text", NOT_READ)
def test_anything_else_is_not(text: str) -> None:
    assert parse_choice(text) is None
