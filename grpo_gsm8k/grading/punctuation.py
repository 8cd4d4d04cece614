"""Punctuation-free grading: a more lenient verdict, reported next to the strict one of `answers.grade`.

A model may find the right number and write it in the notation of another language ("1.234" for 1,234). The reward uses
the strict verdict only. The difference between the two verdicts is the number of notation errors.

Removed from the answer that `answers.extract` returned:

* currency signs at any position (Unicode category Sc: "$", "₺", "¢", "₩", ...);
* punctuation around it (category P, such as quotation marks, brackets, "*", "%", "!"), except for what can belong to
  the number: a dash before it, and a dot or comma;
* a comma or dot followed only by a dash or "=" ("18,-", "18.–");
* an apostrophe, underscore or space between digits if exactly three digits follow ("1'234", "1_234", "1 234").

The rest is parsed twice: unchanged, and with dots and commas swapped. The answer is right if one of the readings is
the gold number. So "1.234" is right for 1234 and for 1.234, in either locale, "1,8" for 1.8, and "1.5" never for 15.
Everything else is as strict as before: one number, no scale ("5 million"), no words before it, no unfinished division.
An answer that is right strictly is also right here.
"""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal

from grpo_gsm8k.grading.answers import MAX_ANSWER_CHARS, Locale, parse_number, same_number
from grpo_gsm8k.grading.notation import plain_text

_SWAPPED = str.maketrans(".,", ",.")
_GROUPS = re.compile(r"(?<=[0-9])['’_ ](?=[0-9]{3}(?![0-9]))")
_NO_CENTS = re.compile(r"[.,] ?[-=—]+$")
_MONEY_SCALE = re.compile(r"[0-9] ?(?:[A-Za-z]|mm)(?![A-Za-z])")  # "$5 m" is five million; without "$" it is a length
_KEPT_PREFIX = ".,"  # ".5"


def without_punctuation(raw: str) -> str:
    """Return the answer text without the characters listed above; dots and commas between digits stay."""
    return _strip_punctuation(plain_text(raw))


def right_without_punctuation(raw: str | None, gold: Decimal, locale: Locale) -> bool:
    """Return whether the raw answer text is the gold number in one of the two readings; False for None (no answer)."""
    if raw is None or len(raw.strip()) > MAX_ANSWER_CHARS:
        return False
    plain = plain_text(raw)  # still contains "US$" and "Rs."
    if _MONEY_SCALE.search(plain) and any(unicodedata.category(c) == "Sc" for c in plain):
        return False
    bare = _strip_punctuation(plain)
    readings = (raw, bare, plain.translate(_SWAPPED), bare.translate(_SWAPPED))
    return any(same_number(parse_number(reading, locale), gold) for reading in dict.fromkeys(readings))


def _strip_punctuation(text: str) -> str:
    text = "".join(c for c in text if unicodedata.category(c) != "Sc").strip()
    text = _NO_CENTS.sub("", text)
    start, end = 0, len(text)
    while start < end and _is_removable(text[start]) and text[start] not in _KEPT_PREFIX:
        start += 1
    while start < end and _is_removable(text[end - 1]):
        end -= 1
    return _GROUPS.sub("", text[start:end])


def _is_removable(character: str) -> bool:
    category = unicodedata.category(character)
    return category.startswith(("P", "Z")) and category != "Pd"
