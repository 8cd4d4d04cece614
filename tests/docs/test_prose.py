"""Docstrings are whole phrases, and the text of the project is plain American English."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import REPO

CODE = sorted(
    path
    for folder in ("grpo_gsm8k", "scripts", "benchmarks", "docker")
    for path in (REPO / folder).rglob("*.py")
    if path.name != "__init__.py"
)
TEXTS = [
    *CODE,
    REPO / "cli.py",
    REPO / "README.md",
    *(REPO / "conf").rglob("*.yaml"),
    *(REPO / "docs").glob("*.md"),
    *(REPO / "grpo_gsm8k" / "report").glob("*.jinja"),
]
# A phrase that begins with one of these is the rest of another one.
FRAGMENT = re.compile(
    r"(?i)(of|in|on|at|by|for|from|to|with|without|into|onto|out|via|per|under|over|between|behind|besides?|among|until|till"
    r"|after|before|since|during|through|as|like|both|those|them|same|the same)\b"
)
IS_NO = re.compile(r"\b(?:is|are) no (?!longer\b|more than\b|less than\b|fewer than\b)[a-z]+")
THERE = re.compile(r"\bthere (?:is|are) no\b", re.IGNORECASE)
BRITISH = re.compile(
    r"(?i)\b\w*(?:summaris|quantis|normalis|recognis|optimis(?!t|m)|generalis|initialis|serialis|tokenis|organis|minimis|maximis"
    r"|labelled|labelling|cancell?ed by|colour|centre[ds]?\b|centring|favour|neighbour|licence|catalogue|grey\b)\w*"
)


def docstrings(path: Path) -> Iterator[tuple[int, str]]:
    """Line and text of each docstring of a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text is not None:
                yield getattr(node, "lineno", 1), text


def is_whole(phrase: str) -> bool:
    """Whether the first paragraph of a docstring stands alone."""
    return not FRAGMENT.match(phrase) and len(phrase.split()) > 1 and phrase.rstrip("`)\"'")[-1] in ".:!?"


def test_docstrings_are_whole_phrases() -> None:
    odd = [
        f"{path.relative_to(REPO)}:{line}: {phrase}"
        for path in [*CODE, REPO / "cli.py"]
        for line, text in docstrings(path)
        if not is_whole(phrase := text.split("\n\n")[0])
    ]
    assert odd == []


def test_text_is_plain_american_english() -> None:
    odd = [
        f"{path.relative_to(REPO)}:{number}: {line.strip()}"
        for path in TEXTS
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if IS_NO.search(THERE.sub("", line)) or BRITISH.search(line)
    ]
    assert odd == []
