r"""One line of LaTeX for an answer that is an expression, from LaTeX or from plain notation. Nothing is parsed here.

Plain words become `\text{...}`, which the parser reads as units, as "and" or "or" between the members of a list, or as
the answer itself. A word that changes a number's value ("5 million", "about 5") is refused, because the parser would
ignore it. In doubt a text is refused: it is then not well-formed.
"""

from __future__ import annotations

import re
from fractions import Fraction

from grpo_gsm8k.grading.units import changes_value, words

MAX_EXPRESSION_CHARS = 1000  # the longest gold answer of MATH has 159
MAX_DEPTH = 30  # of brackets: deeper nesting is not an answer, and slow to parse

_CHARACTERS = str.maketrans(
    {
        **dict.fromkeys("\u2010\u2011\u2012\u2013\u2212", "-"),
        **dict.fromkeys("\u200b\u2060\ufeff", ""),
        "×": r"\times ",
        "·": r"\cdot ",
        "÷": "/",
        "π": r"\pi ",
        "∞": r"\infty ",
        "∪": r"\cup ",
        "∩": r"\cap ",
        "≤": r"\le ",
        "≥": r"\ge ",
        "≠": r"\ne ",
        "±": r"\pm ",
        "∅": r"\emptyset ",
        "°": r"^\circ ",
        "√": " sqrt ",
        "²": "^2",
        "³": "^3",
        "½": r"\frac{1}{2}",
        "¼": r"\frac{1}{4}",
        "¾": r"\frac{3}{4}",
        "∈": r"\in ",
        "⅓": r"\frac{1}{3}",
        "⅔": r"\frac{2}{3}",
        "ℝ": r"\mathbb{R}",
        "−": "-",
        "–": "-",
    }
)
_DELIMITERS = re.compile(r"(?<!\\)\\[()\[\]]|\\\$|\$")
_SPACING = re.compile(r"(?<!\\)\\[,!;: ]|~")
_EMPHASIS = " *_`"
_LEAD = re.compile(
    r"(?:(?:so|thus|therefore|hence),? )?(?:(?:the|my|our) )?(?:(?:final|correct) )?(?:answer|result)(?: is)?:? ", re.I
)
_ROOT = re.compile(r"(?<![\\A-Za-z])sqrt *(?:\(([^()]*)\)|\{([^{}]*)\}|([0-9]+|[a-z]))")
_TOKENS = re.compile(
    r"\\(?:begin|end) *\{[A-Za-z]+\*?\}|\\(?:text|mbox|mathrm|textbf|operatorname)\*? *\{([^{}]*)\}|\\[A-Za-z]+"
    r"|[^\W\d_]{2,}"
)
_UNIT_I = re.compile(r"(?<![A-Za-z\\{])i(?![A-Za-z}])")  # set apart, math-verify reads it as the imaginary unit
_WORDS = re.compile(r"[^\W\d_]+")
_LISTS = words("and or ve veya")
_FUNCTIONS = words("sin cos tan cot sec csc arcsin arccos arctan log ln exp max min gcd lcm det")
_NAMES = {"pi": r"\pi ", "infinity": r"\infty ", "inf": r"\infty ", "oo": r"\infty ", "percent": r"\%"}
_SHORT_UNITS = words(
    "cm mm km ft in yd mi kg mg lb lbs oz ml hr hrs min mins sec secs mph kph day days men cup cups dog dogs "
    "car cars way ways sq cc am pm hat pie gal deg units"
)
_REPEATING = re.compile(r"([0-9]*)\.([0-9]*)\\overline *\{([0-9]+)\}")
_SHORT_BINOMIAL = re.compile(r"\\([dt]?binom) *([0-9])([0-9])")
_PERCENT = re.compile(r" *\\?% *$")
_BASE = re.compile(r"^[0-9A-Fa-f]+_\{?([0-9]+)\}?$")
_PREFIX = re.compile(r"^ *[A-Za-z]\w* *(?:=|\\in(?![A-Za-z])) *")


def latex_of(raw: str) -> str | None:
    """Return an answer text as one line of LaTeX without math delimiters; None if it is not an answer."""
    if not raw.strip() or len(raw) > MAX_EXPRESSION_CHARS or not _is_nested_well(raw):
        return None
    text = " ".join(_SPACING.sub("", _DELIMITERS.sub("", raw.translate(_CHARACTERS))).split())
    text = text.strip(_EMPHASIS).rstrip(" .,;:").strip(_EMPHASIS).replace("**", "^").replace(r"\boxed", "")
    text = _LEAD.sub("", text, count=1) if _LEAD.match(text) else text
    for _ in range(3):
        text = _ROOT.sub(lambda match: rf"\sqrt{{{match[1] or match[2] or match[3]}}}", text)
    text = _SHORT_BINOMIAL.sub(r"\\\1{\2}{\3}", _REPEATING.sub(_as_fraction, text))
    if _changes_number(text):
        return None
    return _UNIT_I.sub(" i ", _TOKENS.sub(_in_latex, text)).strip() or None


def as_percent(latex: str) -> tuple[str, bool]:
    """Return an expression without its percent sign, and whether it has one."""
    body = _PERCENT.sub("", latex)
    return body, body != latex


def base_of(latex: str) -> str | None:
    """Return the base of a number such as `1101_2`."""
    match = _BASE.match(latex.replace(" ", ""))
    return None if match is None else match[1]


def brackets_of(latex: str) -> str | None:
    r"""Return "(" for a tuple or an interval, "{" for a set in braces, None for anything else."""
    text = _PREFIX.sub("", latex.replace(r"\left", "").replace(r"\right", "")).strip()
    if text[:1] in tuple("([") and text[-1:] in tuple(")]"):
        return "("
    return "{" if text.startswith((r"\{", "{")) and text.endswith("}") else None


def _is_nested_well(text: str) -> bool:
    depth = braces = 0
    escaped = False
    for character in text:
        if character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
        if depth > MAX_DEPTH:
            return False
        if not escaped and character in "{}":
            braces += 1 if character == "{" else -1
            if braces < 0:
                return False
        escaped = character == "\\" and not escaped
    return braces == 0


def _changes_number(text: str) -> bool:
    """Return whether words change the value of the number that they stand next to."""
    if not any(c.isdigit() for c in text):
        return False
    for token in _TOKENS.finditer(text):
        written = token[1] if token[1] is not None else "" if token[0].startswith("\\") else token[0]
        for word in _WORDS.findall(written.lower()):
            known = word in _LISTS or word in _NAMES or word in _FUNCTIONS
            if len(word) > 1 and not known and changes_value(word):
                return True
    return False


def _in_latex(token: re.Match[str]) -> str:
    word = token[0]
    if word.startswith("\\"):
        return word
    if word.lower() in _NAMES:
        return _NAMES[word.lower()]
    if word in _FUNCTIONS:
        return f"\\{word} "
    if word.lower() in _LISTS:
        return r"\text{ or }"
    return rf"\text{{{word}}}" if len(word) > 3 or word in _SHORT_UNITS else word  # "xy" is a product


def _as_fraction(match: re.Match[str]) -> str:
    whole, fixed, repeated = match[1] or "0", match[2], match[3]
    scale = 10 ** len(fixed)
    value = Fraction(int(whole + fixed), scale) + Fraction(int(repeated), (10 ** len(repeated) - 1) * scale)
    return rf"\frac{{{value.numerator}}}{{{value.denominator}}}"
