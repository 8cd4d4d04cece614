"""Every room imports only rooms below it, nothing imports in a circle, and each heavy library has its one place."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.conftest import REPO

PACKAGE = REPO / "grpo_gsm8k"
FILES = sorted(PACKAGE.rglob("*.py"))
# From the bottom up: a room may import those before it. A file in the package's root is a room, too.
ROOMS = (
    *("errors", "faults", "files", "children", "grading", "config_keys", "config", "algorithms", "transport", "models"),
    *("data", "tiny", "terminal", "diagnoses", "tracking", "actor", "learner", "runtime", "cluster", "start_model"),
    *("traces", "preflight", "planning", "evaluation/statistics", "evaluation", "evaluation/harness", "report"),
    *("orchestrator", "commands", "command_line"),
)
ROOT_MODULES = {"__init__", "config_keys", "errors", "faults", "models", "start_model"}


def imported(path: Path, types_too: bool = True) -> set[str]:
    """Every module that a file imports anywhere, lazily too; those for type checking only can be left out."""
    tree = ast.parse(path.read_text())
    skipped: set[int] = set()
    if not types_too:
        for node in ast.walk(tree):
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
                skipped |= {id(inner) for inner in ast.walk(node)}
    names: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def own_imports(path: Path) -> set[Path]:
    """The files of the package that a file imports."""
    modules = {name for name in imported(path) if name.startswith("grpo_gsm8k.")}
    files = {REPO / f"{name.replace('.', '/')}.py" for name in modules}
    return {file for file in files if file.is_file()}


def room(path: Path) -> str:
    relative = path.relative_to(PACKAGE)
    return relative.stem if relative.parent == Path() else str(relative.parent)


def importers(library: str) -> set[str]:
    """Files of the package that import a library."""
    return {
        str(path.relative_to(PACKAGE))
        for path in FILES
        if any(name == library or name.startswith(f"{library}.") for name in imported(path, types_too=False))
    }


def test_the_root_holds_what_every_room_needs() -> None:
    assert {path.stem for path in PACKAGE.glob("*.py")} == ROOT_MODULES


@pytest.mark.parametrize("name", ROOMS)
def test_a_room_imports_only_rooms_below_it(name: str) -> None:
    allowed = set(ROOMS[: ROOMS.index(name) + 1])
    for path in (path for path in FILES if room(path) == name):
        assert {room(file) for file in own_imports(path)} <= allowed, path


def test_every_file_is_in_a_room() -> None:
    assert {room(path) for path in FILES if path.stem != "__init__"} == set(ROOMS)


def test_files_do_not_import_in_circles() -> None:
    """Imports for type checking and lazy ones count, too."""
    order = TopologicalSorter({path: own_imports(path) for path in FILES}).static_order()  # raises CycleError
    assert set(order) >= {path for path in FILES if own_imports(path)}


def test_names_are_given_once() -> None:
    names = Counter(path.name for path in PACKAGE.rglob("*") if path.is_file() and path.suffix != ".pyc")
    del names["__init__.py"]
    classes = Counter(
        node.name for path in FILES for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ClassDef)
    )
    assert [name for name, count in (names + classes).items() if count > 1] == []


def test_vllm_wandb_and_multiprocessing_have_one_place() -> None:
    assert importers("vllm") == {"actor/vllm_engine.py", "actor/engine_arguments.py"}
    assert importers("grpo_gsm8k.actor.engine_arguments") == {"actor/vllm_engine.py"}
    assert importers("wandb") == {"tracking/wandb_writer.py"}
    assert importers("tensorboard") == {"tracking/tensorboard_writer.py"}
    assert importers("multiprocessing") == {
        *("runtime/process.py", "cluster/dial_in.py", "cluster/dial_back.py", "cluster/host.py"),
    }


def test_torch_stays_out_of_orchestrator_and_actor_loop() -> None:
    without = ("orchestrator/", "runtime/", "transport/", "actor/", "data/", "tracking/", "grading/", "files/")
    inside = {"actor/weight_probe.py", "actor/reserved_memory.py"}  # run inside vLLM's worker
    assert {path for path in importers("torch") if path.startswith(without)} == inside
    for name in ("weight_probe", "reserved_memory"):
        assert importers(f"grpo_gsm8k.actor.{name}") == {"actor/vllm_engine.py"}


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
