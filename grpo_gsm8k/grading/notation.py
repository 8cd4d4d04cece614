r"""Plain text of an answer: LaTeX, Markdown and Unicode variants of digits, signs and spaces are replaced.

What has no plain equivalent stays as it is, so that the parser in `answers.py` refuses it. Every pattern takes linear
time on any input.
"""

from __future__ import annotations

import re

_SIGNS = dict.fromkeys("\u2010\u2011\u2012\u2013\u2212\u02d7\ufe63", "-")
# Directional overrides (U+202D, U+202E) and invisible operators (U+2061 to U+2064) change the meaning, so they stay.
_INVISIBLE = "\u00ad\u061c\u180e\u200b\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u2060\u2066\u2067\u2068\u2069\ufeff"
_FULL_WIDTH = {chr(code + 0xFEE0): chr(code) for code in range(0x21, 0x7E)}  # without U+FF5E, a mark of ranges
_CHARACTERS = str.maketrans(
    _SIGNS
    | dict.fromkeys(_INVISIBLE, "")
    | _FULL_WIDTH
    | {"\ufe62": "+", "\ufe69": "$", "\ufe6a": "%", "\u2044": "/", "\u2215": "/", "\u02bc": "'"}
)
_THIN = "\u2009"
_REPLACEMENTS = (  # separators become spaces, otherwise "2**3" would read as 23
    ("{,}", ","),
    ("{.}", "."),
    ("\\!", ""),
    ("\\,", _THIN),
    ("\\thinspace", _THIN),
    ("\\$", "$"),
    ("\\%", "%"),
    ("\\(", " "),
    ("\\)", " "),
    ("\\[", " "),
    ("\\]", " "),
    ("**", " "),
    ("`", " "),
)
_DELIMITER_SIZES = re.compile(r"\\(?:left|right)\.|\\(?:left|right|[bB]igg?[lr]?)(?![A-Za-z])")
_SWITCHES = "displaystyle|textstyle|scriptstyle|normalsize|large|Large|LARGE|huge|Huge|bf|bfseries|rm|it"
_WRAPPER = re.compile(
    r"\\(?:text(?:bf|it|rm|tt|sf|normal)?|math(?:rm|bf|it|sf|tt|normal)|boldsymbol|bm|pmb|mbox|hbox|emph|underline"
    rf"|ensuremath|{_SWITCHES}) ?\{{([^{{}}]*)\}}"
)
_BOX = re.compile(r"\\(?:boxed|fbox) ?\{([^{}]*)\}")
_SWITCH = re.compile(rf"\\(?:{_SWITCHES})(?![A-Za-z])")
_FRACTION = re.compile(r"\\(?:[dtcs]|nice)?frac *(?:\{([^{}]*)\}|([0-9])) ?(?:\{([^{}]*)\}|([0-9]))")
_NUMERATOR = re.compile(r"[-+]? ?[$€£₺]?[0-9][0-9.,]*")
_UNIT_WORDS = re.compile(r"[^\W\d_]+(?: [^\W\d_]+)*")
_NESTING = 6  # wrappers inside wrappers; deeper ones stay, so the text is refused
_DEGREES = re.compile(r"\^ ?(?:\\circ|\{\\circ\})|\\degree(?![A-Za-z])")
_SPACES = re.compile(r"\\(?:[;:> ]|q?quad(?![A-Za-z])|(?:en|med|thick)?space(?![A-Za-z]))|(?<=[\w}$%.])~")
_UNIT_POWER = re.compile(r"(?<=[A-Za-z])(?:\^\{?[23]\}?|[²³])")
# One kind of separator, groups of three, and at most as many groups as a number may have digits for.
_GROUPED = re.compile(
    r"(?<![\w.,'’])[1-9][0-9]{0,2}(?:(?P<mark>['’\u00a0\u2005-\u200a\u202f])[0-9]{3})(?:(?P=mark)[0-9]{3}){0,12}"
    r"(?!['’\u00a0\u2005-\u200a\u202f]?[0-9])"
)
_PLAIN = re.compile(r"[^\\{}*`^~'²³]*")  # ASCII without one of these: nothing to replace


def latex_to_text(text: str) -> str:
    """Replace LaTeX, Markdown and character variants; leave everything else unchanged."""
    if _is_plain(text):
        return text  # the common case; the replacements below take ten times as long
    text = text.translate(_CHARACTERS)
    for old, new in _REPLACEMENTS:
        text = text.replace(old, new)
    text = _DELIMITER_SIZES.sub("", text)
    for _ in range(_NESTING):
        unwrapped = _FRACTION.sub(_fraction, _BOX.sub(r" \1 ", _WRAPPER.sub(_unwrapped, text)))
        if unwrapped == text:
            break
        text = unwrapped
    text = _DEGREES.sub("°", _SWITCH.sub(" ", text))
    return _GROUPED.sub(lambda match: match[0].replace(match["mark"], ""), text)


def plain_text(raw: str) -> str:
    """Return an answer text without LaTeX and Markdown, with single spaces."""
    if _is_plain(raw):
        return " ".join(raw.split())
    return " ".join(_UNIT_POWER.sub("", _SPACES.sub(" ", latex_to_text(raw))).split())


def _is_plain(text: str) -> bool:
    return text.isascii() and _PLAIN.fullmatch(text) is not None


def _unwrapped(match: re.Match[str]) -> str:
    r"""Return the content; a unit is set apart, because "5\\text{m}" are meters and "5m" may be millions."""
    apart = match[1].isalpha() and match.string[: match.start()][-1:].isdigit()
    return f" {match[1]}" if apart else match[1]


def _fraction(match: re.Match[str]) -> str:
    r"""Return "1/2" for `\frac{1}{2}` and `\frac12`, "m/s" for units; any other fraction stays LaTeX."""
    top, bottom = ((match[i] if match[i] is not None else match[i + 1]).strip() for i in (1, 3))
    number = bottom.isdigit() and _NUMERATOR.fullmatch(top)
    if not number and not (_UNIT_WORDS.fullmatch(top) and _UNIT_WORDS.fullmatch(bottom)):
        return match[0]
    before = match.string[: match.start()][-1:]
    after = match.string[match.end() :][:1]
    left = " " if before.isalnum() or before in tuple(".,)}") else ""  # "2 1/2" is a mixed number
    right = " " if after.isalnum() else ""  # "1/2 3" is none, and "1/23" would be a wrong one
    return f"{left}{top}/{bottom}{right}"
