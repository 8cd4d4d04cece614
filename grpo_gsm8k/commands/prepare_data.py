"""`command=data`: prepare the data set."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grpo_gsm8k.data.prepare import prepare_data

if TYPE_CHECKING:
    from grpo_gsm8k.config import Config


def prepare_problems(config: Config) -> int:
    """Write the three splits and print their sizes."""
    folder = prepare_data(config.data, config.artifacts, config.prompt.locale, config.prompt.answer_kind)
    print(f"{folder.path}: {folder.train} train, {folder.val} validation, {folder.test} test problems")
    for reason, count in folder.dropped.items():
        print(f"  {count} rows left out: {reason}")
    return 0
