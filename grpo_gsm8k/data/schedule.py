"""The examples of each fine-tuning update as a pure function, so that the update number is the whole data state."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from grpo_gsm8k.data.sampler import prompt_at

if TYPE_CHECKING:
    from collections.abc import Sequence

    from grpo_gsm8k.config import SftConfig

Use = tuple[int, int]  # epoch, index of the example


class UpdateSize(NamedTuple):
    """When an update is full: it has at least `tokens` response tokens, or `examples` examples, whichever is set."""

    tokens: int | None
    examples: int | None


def update_size(config: SftConfig) -> UpdateSize:
    """Return the configured size."""
    return UpdateSize(config.min_tokens_per_update, config.batch_size)


def plan_updates(lengths: Sequence[int], size: UpdateSize, epochs: int, seed: int) -> list[list[Use]]:
    """Fill each update with whole examples until it is full.

    `lengths` are response tokens. Each epoch has its own order and contains every example once. An update that is not
    full at the end of an epoch continues with the next one; the last update takes the rest.
    """
    updates: list[list[Use]] = []
    room = 0
    full = size.tokens if size.tokens is not None else size.examples
    assert full is not None  # SftConfig requires one of them
    for position in range(epochs * len(lengths)):
        epoch, index = prompt_at(position, len(lengths), seed)
        if room <= 0:
            updates.append([])
            room = full
        updates[-1].append((epoch, index))
        room -= lengths[index] if size.tokens is not None else 1
    return updates
