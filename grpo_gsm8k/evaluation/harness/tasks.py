"""Which of lm-eval's tasks are run: its own by name, and a user's YAML files by path."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grpo_gsm8k.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from grpo_gsm8k.config import EvalConfig

_NAME = re.compile(r"^(?:task|group): *['\"]?([^\s'\"#]+)", re.MULTILINE)  # the files hold tags of lm-eval's own


@dataclass(frozen=True, slots=True)
class TaskList:
    """Names of tasks or groups, each once, and the folders of the users' files among them."""

    names: tuple[str, ...]
    folders: tuple[Path, ...]


def wants_gsm8k(config: EvalConfig) -> bool:
    """Tell whether `eval_suites` includes our own accuracy on problems."""
    return bool({"gsm8k", "all"} & set(_suites(config)))


def task_list(config: EvalConfig) -> TaskList:
    """The tasks that `eval_suites` stands for. Raises UserError for a file that names no task."""
    entries: list[str] = []
    for suite in _suites(config):
        if suite in ("lm_eval", "all"):
            entries += config.lm_eval_tasks
        elif suite != "gsm8k":
            entries.append(suite)
    files = [Path(entry) for entry in entries if entry.endswith((".yaml", ".yml"))]
    names = [_task_of(Path(entry)) if Path(entry) in files else entry for entry in entries]
    return TaskList(tuple(dict.fromkeys(names)), tuple(dict.fromkeys(file.resolve().parent for file in files)))


def task_manager(tasks: TaskList) -> Any:
    """lm-eval's index of the tasks. Raises UserError for a name that it does not know."""
    from lm_eval.tasks import TaskManager  # lazy: it takes seconds

    paths: list[str | Path] = list(tasks.folders)
    manager = TaskManager(include_path=paths, include_defaults=False) if paths else None
    if manager is None or not set(tasks.names) <= set(manager.all_tasks):  # lm-eval's own take seconds to index
        manager = TaskManager(include_path=paths or None)
    unknown = sorted(set(tasks.names) - set(manager.all_tasks))
    if unknown:
        raise UserError(
            f"eval.eval_suites or eval.lm_eval_tasks names {', '.join(unknown)}: give gsm8k, lm_eval, all, a task of "
            "`lm-eval ls tasks`, or the path of a task's YAML file"
        )
    return manager


def _suites(config: EvalConfig) -> Sequence[str]:
    return [config.eval_suites] if isinstance(config.eval_suites, str) else config.eval_suites


def _task_of(file: Path) -> str:
    if not file.is_file():
        raise UserError(f"eval.lm_eval_tasks: there is no file {file}")
    found = _NAME.search(file.read_text(encoding="utf-8"))
    if found is None:
        raise UserError(f"{file} has no line `task: NAME`: every task of lm-eval needs one")
    return found[1]
