"""The ledger across rollbacks and a torn line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from grpo_gsm8k.errors import LabError
from grpo_gsm8k.tracking import ledger
from grpo_gsm8k.transport.protocol import PromptUse


def test_rollback_voids_later_steps_and_appending_continues(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    book = ledger.Ledger(path)
    for step in (1, 2, 3):
        book.record(step, [PromptUse(0, f"p{step}")])
    book.rollback(1)
    book.record(2, [PromptUse(0, "again"), PromptUse(0, "long", "prompt_too_long")])
    book.close()
    account = ledger.read(path)
    assert [u.prompt_id for u in account.uses()] == ["p1", "again", "long"]
    with path.open("a") as file:
        file.write('{"step": 3, "pro')  # a kill during a write
    book = ledger.Ledger(path)
    book.record(3, [])
    book.close()
    assert sorted(ledger.read(path).steps) == [1, 2, 3]


def test_correct_completions_are_kept_and_older_ledgers_lack_them(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    path.write_text('{"step": 1, "prompts": [[0, "old", ""], [0, "long", "prompt_too_long"]]}\n')
    book = ledger.Ledger(path)
    uses = [PromptUse(0, "p", "", 3, 8), PromptUse(0, "q", "skipped"), PromptUse(1, "r", "no_variance", 0, 8)]
    book.record(2, uses)
    book.close()
    assert ledger.read(path).steps[2] == tuple(uses)
    assert ledger.read(path).steps[1] == (PromptUse(0, "old"), PromptUse(0, "long", "prompt_too_long"))
    assert json.loads(path.read_text().splitlines()[1]) == {
        "step": 2,
        "prompts": [[0, "p", "", 3, 8], [0, "q", "skipped"], [1, "r", "no_variance", 0, 8]],
    }


def test_a_step_twice_or_a_hole_is_refused(tmp_path: Path) -> None:
    book = ledger.Ledger(tmp_path / "ledger.jsonl")
    book.record(1, [])
    for step in (1, 3):
        with pytest.raises(LabError, match=f"step {step} after step 1"):
            book.record(step, [])
