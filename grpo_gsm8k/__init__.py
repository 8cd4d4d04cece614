"""A post-training lab for small math language models: `train` and `evaluate` run it from Python."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from grpo_gsm8k.command_line.python_interface import evaluate, train

__all__ = ["evaluate", "train"]

if "GRPO_PARENT" in os.environ:  # a worker process: to end with its parent comes before all imports
    from grpo_gsm8k.children.parent_death import die_with_named_parent

    die_with_named_parent()


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


def __getattr__(name: str) -> Any:
    """Import a function when it is first used: every process of a run imports this package."""
    if name in __all__:
        from grpo_gsm8k.command_line import python_interface

        return getattr(python_interface, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
