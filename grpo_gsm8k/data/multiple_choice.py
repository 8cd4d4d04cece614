"""Multiple choice: the choices of a row, how they are shown below the question, and the letter of the right one."""

from __future__ import annotations

import re
import string
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from grpo_gsm8k.data.gold import MARKER
from grpo_gsm8k.data.json_values import kind_name

_LETTER = re.compile(r"[(\[]?([A-Za-z])[)\].:]?")
_SHOWN = 60  # characters of a text in a message


@dataclass(frozen=True, slots=True)
class Choices:
    """The texts of the choices, and their labels in the data if it has some; both empty without choices."""

    texts: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()

    def below(self, question: str) -> str:
        """Return the question with one line `A) text` per choice below it."""
        lines = [f"{string.ascii_uppercase[index]}) {text}" for index, text in enumerate(self.texts)]
        return "\n".join([question, *lines])

    def letter(self, value: object) -> str:
        """Return the letter of the right choice: `B`, `(b)`, `B.`, an index from 0, a label or a choice's text.

        Raises ValueError for anything else, for what means two of them, and for a letter beyond the choices.
        """
        text = str(value).rpartition(MARKER)[2].strip()
        found = self._indices(value, text)
        if not found:
            raise ValueError(f"gold {text[:_SHOWN]!r} is not the letter of a choice such as B")
        if len(found) > 1:
            raise ValueError(f"gold {text[:_SHOWN]!r} can mean two of the choices: give the index, counted from 0")
        (index,) = found
        if not 0 <= index < (len(self.texts) or len(string.ascii_uppercase)):
            raise ValueError(f"gold {text[:_SHOWN]!r} is beyond the {len(self.texts)} choices")
        return string.ascii_uppercase[index]

    def _indices(self, value: object, text: str) -> set[int]:
        """Return every choice that a gold answer can mean."""
        if text in self.labels:
            return {self.labels.index(text)}
        if isinstance(value, int) and not isinstance(value, bool):
            return {value}
        if not isinstance(value, str):
            return set()
        texts = {index for index, choice in enumerate(self.texts) if choice.strip() == text}
        letter = _LETTER.fullmatch(text)
        if letter is None or self.labels:
            return texts
        index = string.ascii_uppercase.index(letter[1].upper())
        return texts if texts and index >= len(self.texts) else texts | {index}


def choices_of(value: Any) -> Choices:
    """Return the choices of a row: a list, or an object with the lists `text` and `label`, as in ARC.

    Raises ValueError.
    """
    if value is None:
        return Choices()
    texts = value.get("text") if isinstance(value, dict) else value
    if not isinstance(texts, list) or not all(_is_choice(text) for text in texts):
        raise ValueError(f"choices is {kind_name(value)}: it must be a list of texts")
    if not 2 <= len(texts) <= len(string.ascii_uppercase):
        raise ValueError(f"choices has {len(texts)} items: it must have 2 to {len(string.ascii_uppercase)}")
    labels = value.get("label") if isinstance(value, dict) else None
    if labels is None:
        return Choices(tuple(map(str, texts)))
    if not isinstance(labels, list) or len(labels) != len(texts) or len(set(map(str, labels))) < len(labels):
        raise ValueError("choices.label must have one label of its own for every choice")
    return Choices(tuple(map(str, texts)), tuple(map(str, labels)))


def _is_choice(text: object) -> bool:
    number = isinstance(text, int | float | Decimal) and not isinstance(text, bool)
    return number or (isinstance(text, str) and bool(text.strip()))
