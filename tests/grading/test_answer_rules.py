"""Formats with tags and with a pattern, the kinds of answers, and which settings are refused."""

from __future__ import annotations

import time
from typing import Any

import pytest

from grpo_gsm8k.grading.answer_rules import PATTERN_SECONDS, AnswerRules
from grpo_gsm8k.grading.answers import AnswerFormat, AnswerKind, Locale, grade
from grpo_gsm8k.grading.grader import Grader

TAGS, REGEX, HASH, BOXED = AnswerFormat.TAGS, AnswerFormat.REGEX, AnswerFormat.HASH, AnswerFormat.BOXED
NUMBER, EXPRESSION, CHOICE, TEXT = AnswerKind.NUMBER, AnswerKind.EXPRESSION, AnswerKind.CHOICE, AnswerKind.TEXT

# text, extracted with <cevap>
TAGGED: list[tuple[str, str | None]] = [
    ("<cevap>42</cevap>", "42"),
    ("<cevap>\n 42 \n</cevap>", "42"),
    ("<matematik>6 * 7</matematik>\n<cevap>42</cevap>", "42"),
    ("<cevap>41</cevap> no, <cevap>42</cevap>", "42"),
    ("Use <cevap>...</cevap>. So <cevap>42</cevap>", "42"),
    ("<cevap>42</cevap></cevap>", "42"),
    ("<cevap>42</cevap>\nQuestion: 1+1?\n<cevap>2</cevap>", "42"),
    ("<cevap>42</cevap>\nuser\n<cevap>2</cevap>", "42"),
    ("<think><cevap>1</cevap></think><cevap>42</cevap>", "42"),
    ("<think><cevap>1</cevap>", None),
    ("<cevap>42", ""),  # not closed
    ("<cevap>41</cevap> or <cevap>42", ""),  # the last one counts
    ("42</cevap>", None),
    ("</cevap>42<cevap>", ""),
    ("<Cevap>42</Cevap>", None),  # another tag
    ("<cevap >42</cevap>", None),
    ("<cevap></cevap>", ""),
    ("42", None),
    ("<cevap><b>42</b></cevap>", "<b>42</b>"),
    ("<cevap>40 <cevap>42</cevap></cevap>", "42"),
]


@pytest.mark.parametrize(("text", "raw"), TAGGED)
def test_tags(text: str, raw: str | None) -> None:
    rules = AnswerRules(TAGS, tag="cevap")
    rules.check()
    assert rules.extract(text) == raw
    graded = Grader(rules).grade(text, "42")
    assert graded.well_formed == graded.correct == (raw == "42")


@pytest.mark.parametrize("tag", ["cevap", "çözüm", "Antwort", "final-answer", "答案", "a.b_2", "ответ"])
def test_any_tag_name(tag: str) -> None:
    rules = AnswerRules(TAGS, tag=tag, kind=TEXT)
    rules.check()
    assert rules.extract(rules.marked("Ankara")) == "Ankara"


@pytest.mark.parametrize(
    ("pattern", "text", "raw"),
    [
        (r"Cevap: *(.+)", "Cevap: 41\nCevap: 42", "42"),
        (r"(?i)final answer is (\S+?)\.?(?:\s|$)", "The Final Answer is 42.", "42"),
        (r"<<(.*?)>>", "<<1>> <<42>>", "42"),
        (r"(?s)BEGIN(.*?)END", "BEGIN\n42\nEND", "42"),
        (r"= (\d+)", "no", None),
        (r"x(\d*)", "x42 x", ""),
        (r"(?:a|b)=(\d+)", "a=41 b=42\nQuestion: 2?\na=43", "42"),
        (r"=(\d+)", "<think>=41</think> =42", "42"),
        (r"(?m)^=(\d+)$", "=42\n=43 no", "42"),
    ],
)
def test_patterns(pattern: str, text: str, raw: str | None) -> None:
    rules = AnswerRules(REGEX, pattern=pattern)
    rules.check()
    assert rules.extract(text) == raw


@pytest.mark.parametrize("pattern", [r"(a+)+$", r"((?:a|aa|a?)+)b", r"(?:x*)*(y)"])
def test_an_exponential_pattern_counts_as_wrong_within_its_limit(pattern: str) -> None:
    rules = AnswerRules(REGEX, pattern=pattern.replace("(a+)+$", "((?:a|aa)+)$"))
    text = "a" * 5000 + "!" if "x" not in pattern else "x" * 30000
    started = time.monotonic()
    graded = Grader(rules).grade(text, "42")
    assert time.monotonic() - started < 20 * PATTERN_SECONDS
    assert not graded.correct
    assert not graded.well_formed


def test_a_pattern_that_takes_too_long_is_counted() -> None:
    graded = Grader(AnswerRules(REGEX, pattern=r"((?:a|a|aa)+)+$".replace(")+$", ")$"))).grade("a" * 3000 + "!", "42")
    assert graded.failed


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"format": TAGS}, "answer_format=tags needs answer_tag"),
    ({"format": HASH, "tag": "cevap"}, "answer_tag has no effect with answer_format=hash"),
    ({"format": REGEX}, "answer_format=regex needs answer_pattern"),
    ({"format": TAGS, "tag": "a", "pattern": "(a)"}, "answer_pattern has no effect with answer_format=tags"),
    ({"format": BOXED, "template": "{answer}"}, "answer_template has no effect with answer_format=boxed"),
    ({"format": TAGS, "tag": "<cevap>"}, "is not a tag name"),
    ({"format": TAGS, "tag": ""}, "is not a tag name"),
    ({"format": TAGS, "tag": "a b"}, "is not a tag name"),
    ({"format": TAGS, "tag": "1a"}, "is not a tag name"),
    ({"format": TAGS, "tag": "ce\nvap"}, "is not a tag name"),
    ({"format": TAGS, "tag": "c\u0327a"}, "is not a tag name"),
    ({"format": TAGS, "tag": "think"}, "already marks reasoning"),
    ({"format": TAGS, "tag": "m", "reasoning_end": "</m>"}, "already marks reasoning"),
    ({"format": TAGS, "tag": "assistant"}, "already marks reasoning or a chat turn"),
    ({"format": REGEX, "pattern": "("}, "is not a regular expression"),
    ({"format": REGEX, "pattern": "a"}, "has 0 groups"),
    ({"format": REGEX, "pattern": "(a)(b)"}, "has 2 groups"),
    ({"format": REGEX, "pattern": "(?<=a"}, "is not a regular expression"),
    ({"format": REGEX, "pattern": "= (.+)", "template": "= "}, "must contain {answer} once"),
    ({"format": REGEX, "pattern": "= (.+)", "template": "Answer: {answer}"}, "answer_pattern reads None instead of"),
    ({"format": AnswerFormat.LAST_NUMBER, "kind": TEXT}, "answer_format=last_number reads numbers alone"),
    ({"format": BOXED, "kind": EXPRESSION, "locale": Locale.TR}, "answer_kind=expression reads English notation"),
]


@pytest.mark.parametrize(("settings", "message"), REFUSED)
def test_settings_without_effect_are_refused_with_one_line(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        AnswerRules(**settings).check()
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("kind", AnswerKind)
@pytest.mark.parametrize("fmt", [f for f in AnswerFormat if f is not AnswerFormat.LAST_NUMBER])
def test_what_is_written_is_read_back(fmt: AnswerFormat, kind: AnswerKind) -> None:
    given = {TAGS: {"tag": "cevap"}, REGEX: {"pattern": r"Cevap: *(.+)", "template": "Cevap: {answer}"}}
    rules = AnswerRules(fmt, kind, **given.get(fmt, {}))  # type: ignore[arg-type]
    rules.check()
    for gold in {NUMBER: ["-0.5", "1234"], EXPRESSION: [r"\frac{1}{2}", "(1,2)"], CHOICE: ["B"], TEXT: ["New York"]}[
        kind
    ]:
        raw = rules.extract(f"Steps.\n{rules.marked(gold)}")
        assert raw == gold
        assert rules.read(raw) == rules.read(gold) is not None


def test_a_turkish_number_in_tags() -> None:
    rules = AnswerRules(TAGS, locale=Locale.TR, tag="cevap")
    assert rules.marked("1234.5") == "<cevap>1234,5</cevap>"
    assert Grader(rules).grade("<cevap>1.234,5</cevap>", "1234.5").correct


def test_a_pattern_without_template_cannot_be_written() -> None:
    with pytest.raises(ValueError, match=r"set prompt\.answer_template"):
        AnswerRules(REGEX, pattern="(.)").marked("1")


def test_choices_and_texts_are_graded() -> None:
    choice = Grader(AnswerRules(HASH, CHOICE))
    assert choice.grade("#### (B) 5", "B").correct
    assert not choice.grade("#### (C) 5", "B").correct
    assert not choice.grade("#### B or C", "B").well_formed
    assert not Grader(AnswerRules(BOXED, CHOICE)).grade(r"\boxed{B} or \boxed{C}", "C").well_formed
    text = Grader(AnswerRules(TAGS, TEXT, Locale.TR, tag="cevap"))
    graded = text.grade("<cevap>İZMİR.</cevap>", "İzmir")
    assert (graded.correct, graded.value) == (True, "İzmir")  # as the data set writes it
    assert text.grade("<cevap>Isparta</cevap>", "İzmir").value == "ısparta"
    with pytest.raises(ValueError, match="is not of answer_kind=choice"):
        choice.grade("#### B", "5")


def test_numbers_keep_their_path() -> None:
    for text in ("#### 18", "#### 1,8", "#### $18.00", "no", "#### 5 million", r"\boxed{18}"):
        for fmt in (HASH, BOXED, AnswerFormat.ANSWER, AnswerFormat.LAST_NUMBER):
            assert Grader(AnswerRules(fmt)).grade(text, "18") == grade(text, "18", fmt, Locale.EN)
