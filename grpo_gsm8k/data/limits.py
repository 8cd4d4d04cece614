"""Which problems are evaluated: all, the first N, or N drawn by the seed."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Protocol, TypeVar

from grpo_gsm8k.config import RANDOM
from grpo_gsm8k.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence


class HasId(Protocol):
    """Anything with an id, which is unique."""

    @property
    def id(self) -> str | int: ...


Item = TypeVar("Item", bound=HasId)


def limited(items: Sequence[Item], limit: int | str | None, seed: int, key: str) -> list[Item]:
    """Return the first N problems for a number, N drawn by the seed for `random:N`, or all for None.

    Drawn items are ranked by a hash of seed and id, so that the choice and its order depend neither on the order of
    the items nor on the version of a library, and fewer are the first of more. Raises UserError, with the name of the
    setting, if there are fewer items.
    """
    count = limit_count(limit, len(items))
    if count > len(items):
        raise UserError(f"{key}={limit}: there are only {len(items)}; lower it, or set {key}=null for all")
    if isinstance(limit, str):
        items = sorted(items, key=lambda item: _rank(seed, item.id))
    return list(items[:count])


def limit_count(limit: int | str | None, total: int) -> int:
    """Return the number of items that a limit asks for, out of `total`."""
    if isinstance(limit, str):
        found = RANDOM.fullmatch(limit)
        assert found is not None  # checked by the configuration
        return int(found[1])
    return total if limit is None else limit


def _rank(seed: int, item_id: str | int) -> bytes:
    return hashlib.sha256(f"{seed}:{item_id}".encode()).digest()
