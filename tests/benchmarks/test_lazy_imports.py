"""Benchmarks import inside of functions and are seldom run: the names that they import of ours must exist."""

from __future__ import annotations

import ast
import importlib
import importlib.util
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent.parent / "benchmarks"
OURS = ("grpo_gsm8k", "benchmarks", "cli")


@pytest.mark.parametrize("file", sorted(BENCHMARKS.rglob("*.py")), ids=lambda file: str(file.relative_to(BENCHMARKS)))
def test_every_imported_name_exists(file: Path) -> None:
    imports = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.ImportFrom)]
    for node in imports:
        if node.module is None or node.module.partition(".")[0] not in OURS:
            continue
        module = importlib.import_module(node.module)
        missing = [a.name for a in node.names if not hasattr(module, a.name) and not _is_module(node.module, a.name)]
        assert missing == [], f"{file.name}:{node.lineno}"


def _is_module(package: str, name: str) -> bool:
    return importlib.util.find_spec(f"{package}.{name}") is not None
