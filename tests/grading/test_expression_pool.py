"""Expressions compared by math-verify: equal re-writings, near-misses, and inputs that must not hang or run code."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from grpo_gsm8k.children.limited_child import Limits
from grpo_gsm8k.errors import LabError, UserError
from grpo_gsm8k.grading import expression_pool
from grpo_gsm8k.grading.answer_rules import AnswerRules
from grpo_gsm8k.grading.answers import AnswerFormat, AnswerKind
from grpo_gsm8k.grading.expression_pool import ExpressionPool
from grpo_gsm8k.grading.grader import Grader
from tests.grading.expressions import KINDS, Case, cases

# gold, answer, equal: what math-verify alone gets wrong, or what is easily misread
TRAPS = [
    (r"(1,2)", r"\{1,2\}", False),  # math-verify: equal
    (r"\{1,2\}", "(1,2)", False),  # math-verify: equal
    (r"\{1,2\}", "2, 1", True),
    ("(1,2)", "(2,1)", False),
    ("[1,2]", "(1,2)", False),
    ("5", r"5\text{ million}", False),  # math-verify: equal
    ("5", "5 thousand", False),
    ("5", "about 5", False),
    ("5", "not 5", False),
    ("5", "x=3, y=5", False),
    ("5", "x=5", True),
    ("x=5", "5", True),
    ("5", "5 or 6", False),
    (r"1101_2", r"1101_3", False),  # math-verify: equal
    (r"1101_2", r"1101_{2}", True),
    (r"2516_8", "2516", True),
    (r"\frac13", "0.333333", True),
    (r"\frac13", "0.33", False),
    (r"\frac13", r"0.\overline{3}", True),
    (r"\frac{14}{99}", r"0.\overline{14}", True),
    ("9", r"9\%", True),
    (r"9\%", "0.09", True),
    (r"9\%", "0.9", False),
    ("1000", r"1\,000", True),  # math-verify: not equal
    ("1000", "1{,}000", True),
    ("1000000", "1,000,000", True),
    ("30", r"30^\circ", True),
    ("6+3i", "6 + 3 i", True),  # math-verify: not equal
    (r"\binom{5}{2}", r"\binom52", True),
    (r"\text{Evelyn}", "Evelyn", True),
    ("y=2x+1", "2x+1", True),
    (r"\pm 3", "3, -3", True),
    ("3", r"\pm 3", False),
    (r"\emptyset", "∅", True),
    ("0.0000001", "0", False),
    ("2", "-2", False),
    (r"\sqrt{2}", "1.41", False),
    (r"\frac{3}{4}", r"\boxed{\frac34}", True),
    (r"\frac{3}{4}", r"\frac 3 4", True),
    ("18", "18 apples and 5 pears", False),  # math-verify: equal
    ("18", "18 because he has 3 left", False),  # math-verify: equal
    ("10", "5 5", False),  # math-verify: equal
    ("11", "5\n6", False),  # math-verify: equal
    ("56", r"5\ 6", False),
    ("10000", "10 000", True),  # math-verify: not equal
    (r"1\frac12", "1 1/2", True),  # math-verify: not equal
    ("10e", "5e2", False),  # math-verify: equal
    ("5", "5:1", False),  # math-verify: equal
    ("5:1", "10:2", True),
    (r"6\text{ ft}", r"6\text{ in}", False),  # math-verify: equal
    (r"6\text{ ft}", "6 feet", True),
    (r"6\text{ cm}^2", r"6\text{ cm}^2", True),
    (r"6\text{ ft}", "6", True),
    ("5", "= 5", True),
    ("5", "Area = 5", True),
]
TOUCH = "touch {file}"
HOSTILE = [
    *("9^{9^{9^9}}", "9^{9^{9^{9^9}}}", "10^{10^{10^{10}}}", "9**9**9**9", "(9^9)^{(9^9)^{9}}", "2^{2^{2^{2^{2^2}}}}"),
    *("10000000!", "((100!)!)!", "3!!!!!!!!", "(10^9)!", r"\binom{10^9}{5\cdot 10^8}", "99999999999!"),
    *(r"\sum_{i=1}^{10^9} i^i", r"\sum_{i=1}^{10^{9}} \frac{1}{i}", r"\prod_{i=1}^{10^9} i", r"\sum_{k=0}^\infty k!"),
    *(r"\int_0^{\infty} e^{-x^{x^x}} dx", r"\int \sin(x^{x^{x}}) \cos(e^{x^2}) dx", r"\lim_{x \to 0} x^{x^{x^{x}}}"),
    *("{" * 30, "}" * 30, r"\frac{1}{", r"\frac{1}{2}}", r"\left( 1, 2", r"\boxed{" * 10 + "5", r"\frac{{{1}{2}"),
    *(
        "1" * 100_000,
        "x" * 100_000,
        "(" * 100_000,
        "((((" * 10 + "1" + "))))" * 10,
        "9" * 999,
        "9" * 450 + "^" + "9" * 450,
    ),
    *(
        "[" * 29 + "1" + "]" * 29,
        r"\sqrt{" * 25 + "2" + "}" * 25,
        "^".join(["2"] * 100),
        "-" * 900 + "1",
        "+".join("1" * 400),
    ),
    *(r"\begin{pmatrix}" + r"\\".join(["1&2&3&4&5&6&7&8&9"] * 40) + r"\end{pmatrix}",),
    *(r"\begin{pmatrix}1&2\\3\end{pmatrix}", r"\begin{pmatrix}1&2\\3&4\end{pmatrix}^{10^{9}}"),
    *(
        r"\det\begin{pmatrix}"
        + r"\\".join(["&".join(f"x_{i}{j}" for j in range(9)) for i in range(9)])
        + r"\end{pmatrix}",
    ),
    *(r"(x+y+z+w)^{3000}", r"\prod_{i=1}^{100}(x+i)^{100}", "x^{1000000}+y^{1000000}-(x+y)^{1000000}"),
    *(f"__import__('os').system('{TOUCH}')", f"eval(\"__import__('os').system('{TOUCH}')\")"),
    *(rf"\text{{__import__('os').system('{TOUCH}')}}", "open('{file}','w').write('1')"),
    *(rf"\operatorname{{__import__('os').system('{TOUCH}')}}", f"$(__import__('os').system('{TOUCH}'))$"),
    *(
        "().__class__.__bases__[0].__subclasses__()",
        "lambda: exit()",
        r"\input{/etc/passwd}",
        "\x00\x01\x02",
        "\ud7ff￿",
    ),
    *("nan", "zoo", r"\frac{0}{0}", r"\frac{1}{0}", r"\infty-\infty", r"0^{0^{0}}", "🙂" * 50),
]


@pytest.fixture(scope="module")
def pool() -> Iterator[ExpressionPool]:
    made = ExpressionPool(Limits(wall_s=60, memory_mb=1024, cpu_s=5), size=2)
    yield made
    made.close()


def agrees(pool: ExpressionPool, case: Case) -> list[str]:
    """Re-writings and near-misses with the wrong verdict."""
    texts = [*case.equal, case.gold, *case.wrong]
    wanted = [True] * (len(case.equal) + 1) + [False] * len(case.wrong)
    verdicts = pool.verdicts(texts, case.gold)
    return [f"{case.gold} ~ {t}" for t, w, v in zip(texts, wanted, verdicts, strict=True) if v.correct != w]


def test_each_kind_of_answer_equals_its_rewritings(pool: ExpressionPool) -> None:
    made = [Case(c.gold, c.equal[:1], c.wrong[:1]) for c in cases(len(KINDS), seed=1)]
    assert [line for case in made for line in agrees(pool, case)] == []


@pytest.mark.slow
def test_300_gold_answers_equal_their_rewritings_and_not_the_near_misses(pool: ExpressionPool) -> None:
    made = cases(300)
    total = sum(len(case.equal) + 1 + len(case.wrong) for case in made)
    wrong = [line for case in made for line in agrees(pool, case)]
    assert total > 2000
    assert len(wrong) <= total // 100, wrong
    near_misses = [v.correct for case in made for v in pool.verdicts(case.wrong, case.gold)]
    assert not any(near_misses)


@pytest.mark.parametrize(("gold", "answer", "equal"), TRAPS)
def test_traps(pool: ExpressionPool, gold: str, answer: str, equal: bool) -> None:
    (verdict,) = pool.verdicts([answer], gold)
    assert not verdict.bad_gold
    assert verdict.correct == equal


@pytest.mark.slow
def test_hostile_inputs_end_as_wrong_and_run_nothing(tmp_path: Path) -> None:
    assert len(HOSTILE) >= 40
    file = tmp_path / "touched"
    pool = ExpressionPool(Limits(wall_s=60, memory_mb=1024, cpu_s=1), size=2)
    try:
        started = time.monotonic()
        verdicts = pool.verdicts([text.replace("{file}", str(file)) for text in HOSTILE], "7")
        assert time.monotonic() - started < 60 * len(HOSTILE)
        assert [text[:80] for text, v in zip(HOSTILE, verdicts, strict=True) if v.correct] == []
        assert Counter(v.failed for v in verdicts)["time"] >= 10  # the limit was needed
        assert not file.exists()
        assert pool.verdicts(["14/2"], "7")[0].correct  # the pool is alive
    finally:
        pool.close()


def test_a_tower_of_powers_is_wrong_within_its_limit_and_the_child_is_replaced() -> None:
    pool = ExpressionPool(Limits(wall_s=60, memory_mb=1024, cpu_s=0.5), size=1)
    try:
        assert pool.verdicts(["7"], "7")[0].correct
        (before,) = pool.pids
        (verdict,) = pool.verdicts(["9^{9^{9^9}}"], "8")
        assert (verdict.correct, verdict.value, verdict.failed) == (False, None, "time")
        assert pool.verdicts(["9^{9^{9^9}}"], "8") == [verdict]  # kept: asked once
        assert pool.pids == []
        assert pool.verdicts(["14/2"], "7")[0].correct
        assert pool.pids != [before]
    finally:
        pool.close()


def test_a_gold_answer_that_is_not_an_expression_is_refused() -> None:
    with (
        Grader(AnswerRules(AnswerFormat.BOXED, AnswerKind.EXPRESSION)) as grader,
        pytest.raises(UserError, match="is not an expression that math-verify reads"),
    ):
        grader.grade(r"\boxed{7}", r"\frac{1}{")


def test_a_child_that_does_not_start_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expression_pool, "MODULE", "grpo_gsm8k.grading.no_such_module")
    with (
        Grader(AnswerRules(AnswerFormat.BOXED, AnswerKind.EXPRESSION)) as grader,
        pytest.raises(LabError, match="grades expressions does not start"),
    ):
        grader.grade(r"\boxed{7}", "7")


def test_grades_of_a_group() -> None:
    with Grader(AnswerRules(AnswerFormat.BOXED, AnswerKind.EXPRESSION)) as grader:
        texts = [
            r"so \boxed{0.5}",
            r"\boxed{\frac13}",
            "no box",
            r"\boxed{\frac{1}{}",
            r"\boxed{1 / 3}",
            r"\boxed{2/4}",
        ]
        grades = grader.grade_all(texts, r"\frac12")
        assert [g.correct for g in grades] == [True, False, False, False, False, True]
        assert [g.well_formed for g in grades] == [True, True, False, False, True, True]
        assert [g.value for g in grades] == [r"\frac12", r"\frac{1}{3}", None, None, r"\frac{1}{3}", r"\frac12"]
        readings = grader.read_all(texts)
        assert [r.value for r in readings] == [
            *(r"\frac{1}{2}", r"\frac{1}{3}", None),
            *(None, r"\frac{1}{3}", r"\frac{1}{2}"),
        ]
    assert all(not Path(f"/proc/{pid}").exists() for pid in _children())


def _children() -> list[int]:
    text = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text()
    found = [int(pid) for pid in text.split()]
    return [pid for pid in found if "expression_child" in Path(f"/proc/{pid}/cmdline").read_text()]
