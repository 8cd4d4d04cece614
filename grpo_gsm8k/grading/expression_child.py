"""The child process that reads and compares expressions with math-verify, which evaluates them with SymPy.

Run as `python -m grpo_gsm8k.grading.expression_child`; `ExpressionPool` starts it, and ends it at a limit. Text is
parsed by latex2sympy's grammar alone: SymPy's `parse_expr`, which evaluates Python, is not reached.
"""

from __future__ import annotations

import contextlib
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from grpo_gsm8k.children.child_loop import serve
from grpo_gsm8k.grading.expression_text import as_percent, base_of, brackets_of, latex_of, units_differ

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_WRITTEN = 1000  # characters of an expression's normal form


def prepare() -> Callable[[Any], Any]:
    """Load the libraries, and parse once, which loads the grammar."""
    import logging

    import math_verify  # noqa: F401  in the child alone: it takes a second and 60 MB
    import sympy  # noqa: F401

    logging.disable(logging.CRITICAL)  # math-verify warns that its own timeouts are off
    parsed("1")
    return verdict


def verdict(request: dict[str, Any]) -> dict[str, Any]:
    """Return whether the answer is the gold expression, and both in their normal form (None: unreadable).

    Without `gold` the answer is only read. A right answer has the gold answer's normal form.
    """
    text, gold = latex_of(request["text"]), request["gold"]
    answer = None if text is None else parsed(text)
    if gold is None:
        return {"value": None if answer is None else written(answer[0], request["text"]), "correct": False}
    gold_text = latex_of(gold)
    expected = None if gold_text is None else parsed(gold_text)
    if gold_text is None or expected is None:
        return {"value": None, "correct": False, "bad_gold": True}
    if text is None or answer is None:
        return {"value": None, "correct": False}
    if text == gold_text or are_equal(gold_text, expected[0], text, answer[0]):
        return {"value": gold, "correct": True}
    return {"value": written(answer[0], request["text"]), "correct": False}


@lru_cache(maxsize=2048)
def parsed(latex: str) -> tuple[Any] | None:
    """Return the SymPy object of a line of LaTeX in a tuple, or None."""
    from math_verify import LatexExtractionConfig, parse

    body, is_percent = as_percent(latex)
    found = parse(
        f"${body}$" + (r"\%" if is_percent else ""),
        [LatexExtractionConfig(boxed_match_priority=-1)],
        fallback_mode="no_fallback",
        parsing_timeout=None,  # the parent ends this process
    )
    return (found[0],) if len(found) == 1 else None


def are_equal(gold_latex: str, gold: Any, latex: str, answer: Any) -> bool:
    r"""Return math-verify's verdict, except for what it takes for equal and is not.

    A set in braces is not a tuple or an interval, a ratio is not a number, and numbers written in different bases or
    with different units differ.
    """
    from math_verify import verify

    if {brackets_of(gold_latex), brackets_of(latex)} == {"(", "{"}:
        return False
    if (":" in gold_latex) != (":" in latex) or units_differ(gold_latex, latex):
        return False
    bases = {base for base in (base_of(gold_latex), base_of(latex)) if base is not None}
    return len(bases) < 2 and bool(verify(gold, answer, timeout_seconds=None))  # not symmetric: gold first


def written(expression: Any, text: str) -> str:
    """Return LaTeX that equal expressions mostly share; the text itself for an expression without a short form."""
    import sympy

    with contextlib.suppress(
        ArithmeticError, AttributeError, NotImplementedError, RecursionError, TypeError, ValueError
    ):
        latex = str(sympy.latex(expression.doit()))
        if len(latex) <= MAX_WRITTEN:
            return latex
    return text


if __name__ == "__main__":
    serve(prepare)
