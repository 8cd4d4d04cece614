"""The ledger: an append-only record of what every prompt of every epoch was used for.

A line is `{"step": k, "prompts": [[epoch, prompt_id, reason, correct, of], ...]}` or `{"rollback": k}`; entries without
completions end after the reason. `correct` of the `of` completions were right. A rollback means that the
learner was restarted from the checkpoint of step k, which voids the lines of later steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from grpo_gsm8k.errors import IntegrityError, LabError
from grpo_gsm8k.files.json_lines import JsonLines
from grpo_gsm8k.transport.protocol import PromptUse

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
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
    try:
        for number, line in enumerate(lines.records(), start=1):
            try:
                steps = _applied(steps, line)
            except (KeyError, TypeError):
                raise IntegrityError(f"{path}: line {number} is not one of a ledger: restore the file") from None
    finally:
        lines.close()
    return Account(steps)


def _applied(steps: dict[int, tuple[PromptUse, ...]], line: Mapping[str, Any]) -> dict[int, tuple[PromptUse, ...]]:
    """Return the steps after one more line. Raises KeyError or TypeError if it is none."""
    if "rollback" in line:
        return {step: uses for step, uses in steps.items() if step <= line["rollback"]}
    return {**steps, _whole(line["step"]): tuple(_use(*entry) for entry in line["prompts"])}


def _use(epoch: int, prompt_id: str, reason: str, correct: int | None = None, of: int | None = None) -> PromptUse:
    if not isinstance(prompt_id, str) or not isinstance(reason, str):
        raise TypeError("not text")
    return PromptUse(_whole(epoch), prompt_id, reason, *(None if n is None else _whole(n) for n in (correct, of)))


def _whole(number: object) -> int:
    if type(number) is not int:
        raise TypeError("not a whole number")
    return number
