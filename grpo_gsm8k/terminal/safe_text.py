"""Text of models and other sources made harmless for a terminal."""

from __future__ import annotations

import unicodedata

# Control characters, format characters (direction overrides, joiners), surrogates, private use, line separators.
UNSAFE = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})


def safe_text(text: str) -> str:
    """Return the text with its line breaks, and every other character that could control a terminal as an escape."""
    return "".join(_safe(character) for character in text.replace("\r\n", "\n").expandtabs(4))


def one_line(text: str) -> str:
    """Return `safe_text` on one line, with each run of white space as one blank."""
    return " ".join(safe_text(text).split())


def encodable(text: str, encoding: str | None) -> str:
    """Return the text with characters that the encoding lacks as escapes."""
    name = encoding or "ascii"
    return text.encode(name, "backslashreplace").decode(name)


def shortened(text: str, size: int, ellipsis: str = " ... ") -> str:
    """Return at most `size` characters of a text: its beginning, and its end, where the answer is."""
    if len(text) <= size:
        return text
    room = max(size - len(ellipsis), 0)
    end = room * 2 // 3
    return text[: room - end] + ellipsis[:size] + (text[-end:] if end else "")


def _safe(character: str) -> str:
    if character == "\n" or unicodedata.category(character) not in UNSAFE:
        return character
    return character.encode("unicode_escape").decode("ascii")
