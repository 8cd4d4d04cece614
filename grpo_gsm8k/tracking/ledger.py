"""The ledger: an append-only record of what every prompt of every epoch was used for.

A line is `{"step": k, "prompts": [[epoch, prompt_id, reason, correct, of], ...]}` or `{"rollback": k}`; entries without
completions end after the reason. `correct` of the `of` completions were right. A rollback means that the
learner was restarted from the checkpoint of step k, which voids the lines of later steps.
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
    """Prompts by step, without voided steps."""

    steps: dict[int, tuple[PromptUse, ...]]

    def uses(self) -> list[PromptUse]:
        """Return all prompts in the order of their steps."""
        return [use for step in sorted(self.steps) for use in self.steps[step]]


class Ledger:
    """Writer of one run's ledger, owned by the orchestrator."""

    def __init__(self, path: Path) -> None:
        """Open or create the file; a torn last line is repaired."""
        self._lines = JsonLines(path)
        self._last = max(read(path).steps, default=0)

    def record(self, step: int, prompts: Sequence[PromptUse]) -> None:
        """Record one policy update. Raises LabError unless `step` is the next one."""
        if step != self._last + 1:
            raise LabError(f"ledger: got step {step} after step {self._last}, expected {self._last + 1}")
        self._last = step
        self._lines.append({"step": step, "prompts": [_entry(use) for use in prompts]})

    def rollback(self, step: int) -> None:
        """Void all steps after `step`."""
        if self._last > step:
            self._lines.append({"rollback": step})
        self._last = step

    def close(self) -> None:
        """Sync to disk and close."""
        self._lines.close()


def _entry(use: PromptUse) -> list[int | str | None]:
    counts = [] if use.of is None else [use.correct, use.of]
    return [use.epoch, use.prompt_id, use.reason, *counts]


def read(path: Path) -> Account:
    """Read a ledger file and apply its rollbacks."""
    lines = JsonLines(path)
    steps: dict[int, tuple[PromptUse, ...]] = {}
    for line in lines.records():
        if "rollback" in line:
            steps = {step: uses for step, uses in steps.items() if step <= line["rollback"]}
        else:
            steps[line["step"]] = tuple(PromptUse(*entry) for entry in line["prompts"])
    lines.close()
    return Account(steps)
