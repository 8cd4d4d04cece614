r"""The letter of a multiple-choice answer.

Read as B: `B`, `b`, `(B)`, `B.`, `B) 5`, `**B**`, `\text{(B)}`, `choice B`, `The answer is B.`. Not read: no letter, a
word, and several letters (`B or C`, `A, B`), which would be right by luck.
"""

from __future__ import annotations

import re
import unicodedata

from grpo_gsm8k.grading.answers import MAX_ANSWER_CHARS
from grpo_gsm8k.grading.notation import plain_text

_CHOICE = re.compile(
    r"(?:(?:so|thus|therefore|hence),? )?(?:(?:the|my|our) )?(?:(?:final|correct|right|best) )?"
    r"(?:(?:answer|choice|option|cevap|doğru cevap|seçenek|şık)(?: is| choice| option)?:? ?)?"
    r"(?:(?:choice|option|seçenek|şık) )?[(\[]?(?P<letter>[a-z])"
    r"(?:[)\]]? ?[.:,;!]?|(?P<separator> ?[)\].:]| [-–—]) ?(?P<explanation>.+))",
    re.IGNORECASE,
)
# "B) or C)", "B. / C": further letters. A letter inside an explanation ("B) vitamin C") is not one.
_FURTHER_LETTER = re.compile(
    r"\([A-Z]\)|(?<![A-Z])[A-Z]\)|^(?:and|or|ve|veya|/|&|,)? ?[A-Z](?![A-Z])[.:]?(?: |$)", re.I
)


def parse_choice(raw: str) -> str | None:
    """Return the capital letter of an answer text; None if there is not exactly one."""
    raw = raw.strip()
    if len(raw) > MAX_ANSWER_CHARS:
        return None
    text = unicodedata.normalize("NFKC", plain_text(raw)).replace("$", " ")
    match = _CHOICE.fullmatch(" ".join(text.split()).strip("*_ \"'“”‘’"))
    if match is None:
        return None
    letter, explanation = match["letter"], match["explanation"] or ""
    return None if not letter.isascii() or _FURTHER_LETTER.search(explanation) else letter.upper()
