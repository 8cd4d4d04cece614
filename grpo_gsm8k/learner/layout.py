"""Which rows of packed tokens attend to which: the one description that every attention implementation reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

Built = TypeVar("Built")


class Segment(NamedTuple):
    """`length` rows from `start` on: each attends to the rows of its context, to those before it, and to itself.

    The context is `context` rows from `context_start` on: the shared prompt of a completion. A prompt, or a prompt with
    its only completion, has none.
    """

    start: int
    length: int
    context_start: int = 0
    context: int = 0


class Layout:
    """Segments of one micro-batch in the order of their rows, and what attention has built from them so far.

    It travels through the transformer blocks as an argument. It is a plain class, because torch.compile compares the
    fields of tuples and dataclasses and would compile every block anew for each micro-batch; of a plain object that is
    only passed on, it compares the type.
    """

    def __init__(self, segments: Sequence[Segment]) -> None:
        """`segments` cover the rows 0 to T without gaps; empty ones are left out."""
        self.segments = tuple(segment for segment in segments if segment.length)
        self._built: dict[Hashable, object] = {}

    def built(self, key: Hashable, build: Callable[[], Built]) -> Built:
        """Return `build()`, computed once for each `key`: all layers of a model use the same masks and indices."""
        if key not in self._built:
            self._built[key] = build()
        found: Built = self._built[key]  # type: ignore[assignment]
        return found

    @property
    def tokens(self) -> int:
        """Number of rows T."""
        return sum(segment.length for segment in self.segments)


def shared_prompt(start: int, prompt: int, completions: Sequence[int]) -> list[Segment]:
    """Return the segments of a prompt and of the completions that follow it, lengths in input tokens.

    A prompt with one completion is one plain sequence.
    """
    if len(completions) == 1:
        return [Segment(start, prompt + completions[0])]
    made = [Segment(start, prompt)]
    offset = start + prompt
    for length in completions:
        made.append(Segment(offset, length, start, prompt))
        offset += length
    return made
