"""The examples of each fine-tuning update as a pure function, so that the update number is the whole data state."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grpo_gsm8k.data.sampler import prompt_at

if TYPE_CHECKING:
    from collections.abc import Sequence

Use = tuple[int, int]  # epoch, index of the example


def plan_updates(lengths: Sequence[int], min_tokens: int, epochs: int, seed: int) -> list[list[Use]]:
    """Fill each update with whole examples until it has at least `min_tokens` tokens.

    `lengths` are response tokens. Each epoch has its own order and contains every example once. An update that is not
    full at the end of an epoch continues with the next one; the last update takes the rest.
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
