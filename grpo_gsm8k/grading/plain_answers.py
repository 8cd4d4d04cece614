"""Answers that are texts: equal if their normal forms are."""

from __future__ import annotations

import unicodedata

from grpo_gsm8k.grading.answers import Locale
from grpo_gsm8k.grading.notation import plain_text

MAX_TEXT_CHARS = 1000
_QUOTES = "\"'`´“”„‘’‚«»‹›$*_"
_ENDS = " .,;:!?…。"
_TURKISH = str.maketrans({"I": "ı", "İ": "i"})


def normalized_text(raw: str, locale: Locale) -> str | None:
    """Return the normal form of a text; None for an empty or an overlong one.

    Case, spaces, LaTeX's text commands, Unicode variants (NFKC), quotes and marks of emphasis around the text, and
    punctuation at its end make no difference. In Turkish I is the capital of ı, and İ that of i.
    """
    if len(raw) > MAX_TEXT_CHARS:
        return None
    text = unicodedata.normalize("NFKC", plain_text(raw))
    if locale is Locale.TR:
        text = text.translate(_TURKISH)
    text = " ".join(unicodedata.normalize("NFKC", text.casefold()).split())
    before = None
    while text != before:  # quotes and punctuation alternate: "Ankara."
        before = text
        text = text.strip(_QUOTES + " ").rstrip(_ENDS)
    return text or None
