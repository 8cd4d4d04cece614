"""Imports point one way, and each heavy library has its one place."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPO

PACKAGE = REPO / "grpo_gsm8k"
FILES = sorted(PACKAGE.rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Every module that a file imports anywhere, lazily too, but not for type checking only."""
    tree = ast.parse(path.read_text())
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    names: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def importers(library: str) -> set[str]:
    """Files of the package that import a library."""
    return {
        str(path.relative_to(PACKAGE))
        for path in FILES
        if any(name == library or name.startswith(f"{library}.") for name in imported(path))
    }


def test_vllm_wandb_and_multiprocessing_have_one_place() -> None:
    assert importers("vllm") == {"actor/vllm_engine.py"}
    assert importers("wandb") == {"tracking/wandb_writer.py"}
    assert importers("multiprocessing") == {"runtime/process.py"}


def test_torch_stays_out_of_orchestrator_and_actor_loop() -> None:
    assert {p for p in importers("torch") if p.startswith(("orchestrator/", "actor/", "data/"))} == set()


FORBIDDEN = {
    "learner/": (
        "grpo_gsm8k.actor",
        "grpo_gsm8k.orchestrator",
        "grpo_gsm8k.tracking.tracker",
        "grpo_gsm8k.tracking.wandb_writer",
    ),
    "actor/": ("grpo_gsm8k.learner", "grpo_gsm8k.orchestrator", "grpo_gsm8k.algorithms"),
    "algorithms/": ("grpo_gsm8k.learner", "grpo_gsm8k.actor", "grpo_gsm8k.orchestrator", "grpo_gsm8k.data"),
    "data/": ("grpo_gsm8k.learner", "grpo_gsm8k.actor", "grpo_gsm8k.orchestrator"),
    "transport/protocol.py": ("grpo_gsm8k",),
    "grading/answers.py": ("grpo_gsm8k.grading.rewards", "grpo_gsm8k.grading.scoring"),
}


@pytest.mark.parametrize("part", FORBIDDEN)
def test_imports_point_one_way(part: str) -> None:
    for path in FILES:
        if str(path.relative_to(PACKAGE)).startswith(part):
            wrong = [n for n in imported(path) if n.startswith(FORBIDDEN[part])]
            assert not wrong, f"{path} imports {wrong}"


def test_the_orchestrator_loads_neither_torch_nor_vllm() -> None:
    code = "import sys, cli, grpo_gsm8k.orchestrator.run; print({'torch', 'vllm', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_nothing_dangerous_is_called() -> None:
    banned = ("torch.load", "pickle.load", "instantiate(", "trust_remote_code=True", "shell=True")
    for path in [*FILES, REPO / "cli.py"]:
        text = path.read_text()
        assert not [word for word in banned if word in text], path
        calls = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)]
        assert not [c for c in calls if c.func.id in {"eval", "exec"}], path  # type: ignore[attr-defined]
