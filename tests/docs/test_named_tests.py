"""The tests that docs/reliability.md names exist; `...` stands for the file of the name before."""

from __future__ import annotations

import re

from tests.conftest import REPO

NAME = re.compile(r"`(tests/[\w/.]+\.py|\.\.\.)(?:::(\w+))?")


def test_every_fault_has_its_test() -> None:
    file, missing = "", []
    for found in NAME.finditer((REPO / "docs" / "reliability.md").read_text()):
        file = file if found[1] == "..." else found[1]
        path = REPO / file
        if not path.is_file() or (found[2] and f"def {found[2]}(" not in path.read_text()):
            missing.append(found[0])
    assert missing == []
