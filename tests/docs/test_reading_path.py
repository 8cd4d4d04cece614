"""README's reading path: the files exist, and their lengths are about what it says."""

from __future__ import annotations

import re

import pytest

from tests.conftest import REPO

ROW = re.compile(r"^\| \[[^]]+\]\((grpo_gsm8k/[^)]+)\) \| (\d+) \|", re.MULTILINE)


def test_lengths() -> None:
    rows = ROW.findall((REPO / "README.md").read_text())
    assert len(rows) == 6
    for path, lines in rows:
        assert len((REPO / path).read_text().splitlines()) == pytest.approx(int(lines), rel=0.15), path
    assert rows[0][0] == "grpo_gsm8k/learner/policy_gradient.py"
    assert int(rows[0][1]) <= 60  # the loop fits one screen
