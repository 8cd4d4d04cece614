"""The graded format reward equals that of the Turkish GRPO notebook on every kind of text."""

from __future__ import annotations

import itertools

import pytest

from grpo_gsm8k.grading.tag_count import tag_count

TAGS = ("matematik", "cevap")
GOOD = "<matematik>\n2 + 3 = 5\n</matematik>\n<cevap>\n5\n</cevap>"
# All combinations of openings, line breaks and endings, some of them several times.
TEXTS = [
    "".join(pieces)
    for pieces in itertools.product(
        ("", "x", "<matematik>\n", "<matematik>", "<matematik>\n<matematik>\n"),
        ("2 + 3",),
        ("", "\n</matematik>\n", "</matematik>\n", "\n</matematik>"),
        ("", "<cevap>\n", "\n<cevap>\n", "\n<cevap>\n\n<cevap>\n"),
        ("5", "1.234,5 TL"),
        ("", "</cevap>", "\n</cevap>", "\n</cevap>\n", "\n</cevap>\n\n</cevap>\n"),
        ("", "\n", " and more", "x" * 700),
    )
]


def notebook_reward(text: str) -> float:
    """The function of the notebook, as it was published."""
    count = 0.0
    if text.count("<matematik>\n") == 1:
        count += 0.125
    if text.count("\n</matematik>\n") == 1:
        count += 0.125
    if text.count("\n<cevap>\n") == 1:
        count += 0.125
        count -= len(text.split("\n</cevap>\n")[-1]) * 0.001
    if text.count("\n</cevap>") == 1:
        count += 0.125
        count -= (len(text.split("\n</cevap>")[-1]) - 1) * 0.001
    return count


def test_it_equals_the_notebook_exactly() -> None:
    texts = [GOOD, GOOD + "\n", GOOD + "\ntrailing", GOOD + GOOD, GOOD.replace("\n", "\r\n"), *TEXTS]
    values = {tag_count(text, TAGS, 0.001) for text in texts}
    assert [tag_count(text, TAGS, 0.001) for text in texts] == [notebook_reward(text) for text in texts]
    assert len(values) > 20
    assert min(values) < -1


@pytest.mark.parametrize(
    ("text", "value"),
    [(GOOD, 0.5), (GOOD + "\nmuch more" * 99, 0.5), (GOOD.replace("</matematik>\n", "</matematik>"), 0.25), ("", 0.0)],
)
def test_without_a_cost_each_tag_counts_alike(text: str, value: float) -> None:
    assert tag_count(text, TAGS, 0.0) == value


def test_other_tags() -> None:
    text = GOOD.replace("matematik", "reasoning").replace("cevap", "answer")
    assert tag_count(text, ("reasoning", "answer"), 0.0) == 0.5
    assert tag_count(text, TAGS, 0.0) == 0.0
