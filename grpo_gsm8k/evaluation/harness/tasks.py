"""Selection of lm-eval tasks: built-in ones by name, and users' YAML files by path."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grpo_gsm8k.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from grpo_gsm8k.config import EvalConfig

_SHIPPED = Path(__file__).parent / "tiny_sums.yaml"  # selected by its name, like a task of lm-eval
_NAME = re.compile(
    r"^(?:task|group): *['\"]?([^\s'\"#]+)", re.MULTILINE
)  # a regex, because YAML's safe loader rejects lm-eval's tags


@dataclass(frozen=True, slots=True)
class TaskList:
    """Unique names of tasks or groups, and the folders of the users' YAML files."""

    names: tuple[str, ...]
    folders: tuple[Path, ...]


def wants_gsm8k(config: EvalConfig) -> bool:
    """Return whether `eval_suites` includes our own accuracy evaluation."""
    return bool({"gsm8k", "all"} & set(_suites(config)))


def task_list(config: EvalConfig) -> TaskList:
    """Return the tasks selected by `eval_suites`. Raises UserError for a file without a task name."""
    entries: list[str] = []
    for suite in _suites(config):
        if suite in ("lm_eval", "all"):
            entries += config.lm_eval_tasks
        elif suite != "gsm8k":
            entries.append(suite)
    entries = [str(_SHIPPED) if entry == _SHIPPED.stem else entry for entry in entries]
    files = [Path(entry) for entry in entries if entry.endswith((".yaml", ".yml"))]
    names = [_task_of(Path(entry)) if Path(entry) in files else entry for entry in entries]
    return TaskList(tuple(dict.fromkeys(names)), tuple(dict.fromkeys(file.resolve().parent for file in files)))


def task_manager(tasks: TaskList) -> Any:
    """Return lm-eval's task index. Raises UserError for unknown task names."""
    from lm_eval.tasks import TaskManager  # lazy: it takes seconds

    paths: list[str | Path] = list(tasks.folders)
    manager = TaskManager(include_path=paths, include_defaults=False) if paths else None
    if manager is None or not set(tasks.names) <= set(manager.all_tasks):  # indexing the built-in tasks takes seconds
        manager = TaskManager(include_path=paths or None)
    unknown = sorted(set(tasks.names) - set(manager.all_tasks))
    if unknown:
        raise UserError(
            f"eval.eval_suites or eval.lm_eval_tasks: unknown {', '.join(unknown)}; give gsm8k, lm_eval, all, a task "
            "of `lm-eval ls tasks`, or the path of a task's YAML file"
        )
    return manager


def _suites(config: EvalConfig) -> Sequence[str]:
    return [config.eval_suites] if isinstance(config.eval_suites, str) else config.eval_suites


def _task_of(file: Path) -> str:
    if not file.is_file():
        raise UserError(f"eval.lm_eval_tasks: {file} does not exist")
    found = _NAME.search(file.read_text(encoding="utf-8"))
    if found is None:
        raise UserError(f"{file} has no line `task: NAME`, which every lm-eval task needs")
    return found[1]
