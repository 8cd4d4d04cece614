"""Which examples each update of supervised fine-tuning learns, as a pure function: all of its state is one integer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grpo_gsm8k.data.sampler import prompt_at

if TYPE_CHECKING:
    from collections.abc import Sequence

Use = tuple[int, int]  # epoch, index of the example


def plan_updates(lengths: Sequence[int], min_tokens: int, epochs: int, seed: int) -> list[list[Use]]:
    """Fill one update after another with whole examples, until each has `min_tokens` of them.

    `lengths` are response tokens. Each epoch has an order of its own; an update that is not full at an epoch's end goes
    on with the next epoch, and the last one takes what is left: every example comes once in every epoch.
    """
    updates: list[list[Use]] = []
    room = 0
    for position in range(epochs * len(lengths)):
        epoch, index = prompt_at(position, len(lengths), seed)
        if room <= 0:
            updates.append([])
            room = min_tokens
        updates[-1].append((epoch, index))
        room -= lengths[index]
    return updates
