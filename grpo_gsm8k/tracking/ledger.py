"""The ledger: what became of every prompt of every epoch, append-only.

A line is `{"step": k, "prompts": [[epoch, prompt_id, reason], ...]}` or `{"rollback": k}`: the learner was restarted
from a checkpoint of step k, so what was recorded for later steps is no part of the surviving history.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from grpo_gsm8k.errors import LabError
from grpo_gsm8k.files.json_lines import JsonLines
from grpo_gsm8k.transport.protocol import PromptUse

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Account:
    """The surviving history: prompts by step, in the order of the steps."""

    steps: dict[int, tuple[PromptUse, ...]]

    def uses(self) -> list[PromptUse]:
        """All of them, oldest first."""
        return [use for step in sorted(self.steps) for use in self.steps[step]]


class Ledger:
    """Writes the ledger of one run; the orchestrator owns it."""

    def __init__(self, path: Path) -> None:
        """Open or create; a torn last line is repaired."""
        self._lines = JsonLines(path)
        self._last = max(read(path).steps, default=0)

    def record(self, step: int, prompts: Sequence[PromptUse]) -> None:
        """Enter one policy update. Raises LabError unless it is the next one."""
        if step != self._last + 1:
            raise LabError(f"ledger: step {step} after step {self._last}")
        self._last = step
        self._lines.append({"step": step, "prompts": [[p.epoch, p.prompt_id, p.reason] for p in prompts]})

    def rollback(self, step: int) -> None:
        """Void every later step."""
        if self._last > step:
            self._lines.append({"rollback": step})
        self._last = step

    def close(self) -> None:
        """Put it on the disk."""
        self._lines.close()


def read(path: Path) -> Account:
    """The surviving history of a ledger file."""
    lines = JsonLines(path)
    steps: dict[int, tuple[PromptUse, ...]] = {}
    for line in lines.records():
        if "rollback" in line:
            steps = {step: uses for step, uses in steps.items() if step <= line["rollback"]}
        else:
            steps[line["step"]] = tuple(PromptUse(*entry) for entry in line["prompts"])
    lines.close()
    return Account(steps)
