"""Is an answer right but for its punctuation? A more lenient verdict beside the strict one of `answers.grade`.

A model may know the number and write it in the notation of another language ("1.234" for 1,234). Training such a model
pays the strict verdict; the difference between both says how many of its errors are errors of notation.

Taken away, from the answer as `answers.extract` found it:

* currency signs, wherever they stand (Unicode category Sc: "$", "₺", "¢", "₩", ...);
* punctuation around it (category P, such as quotation marks, brackets, "*", "%", "!"), but for what can belong to the
  number: a dash before it, and a dot or comma;
* a comma or dot with nothing but a dash or "=" behind it ("18,-", "18.–");
* an apostrophe, underscore or space between digits where exactly three digits follow ("1'234", "1_234", "1 234").

What then is left is read twice: with its dots and commas as they are, and with each dot a comma and each comma a dot.
It is right where one of the readings is the gold number. So "1.234" is right for 1234 and for 1.234, in either locale,
"1,8" for 1.8, and "1.5" never for 15. Everything else is as strict as before: one number, no scale ("5 million"), no
words before it, no division left undone, and what is right strictly is right here.
"""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal

from grpo_gsm8k.grading.answers import MAX_ANSWER_CHARS, Locale, parse_number, plain_text, same_number

_SWAPPED = str.maketrans(".,", ",.")
_GROUPS = re.compile(r"(?<=[0-9])['’_ ](?=[0-9]{3}(?![0-9]))")
_NO_CENTS = re.compile(r"[.,] ?[-=—]+$")
_KEPT_IN_FRONT = ".,"  # ".5"


def without_punctuation(raw: str, locale: Locale) -> str:
    """The answer text without what the module's text lists; dots and commas between digits stay as they are."""
    return _bare(plain_text(raw, locale))


def right_without_punctuation(raw: str | None, gold: Decimal, locale: Locale) -> bool:
    """Tell whether the raw answer text is the gold number in one of both readings; None, no answer, never is."""
    if raw is None or len(raw.strip()) > MAX_ANSWER_CHARS:
        return False
    as_it_is = plain_text(raw, locale)  # "US$" and "Rs." are still in it
    bare = _bare(as_it_is)
    readings = (raw, bare, as_it_is.translate(_SWAPPED), bare.translate(_SWAPPED))
    return any(same_number(parse_number(reading, locale), gold) for reading in dict.fromkeys(readings))


def _bare(text: str) -> str:
    text = "".join(c for c in text if unicodedata.category(c) != "Sc").strip()
    text = _NO_CENTS.sub("", text)
    start, end = 0, len(text)
    while start < end and _around(text[start]) and text[start] not in _KEPT_IN_FRONT:
        start += 1
    while start < end and _around(text[end - 1]):
        end -= 1
    return _GROUPS.sub("", text[start:end])


def _around(character: str) -> bool:
    category = unicodedata.category(character)
    return category.startswith(("P", "Z")) and category != "Pd"
