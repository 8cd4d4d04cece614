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
_THIN_SPACES, _SPACES = re.compile(r"(?<!\\)\\[,!]"), re.compile(r"(?<!\\)\\[;: ]|~")
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
_SHORT_FRACTION = re.compile(r"\\([dt]?frac) *([0-9]) *([0-9])")
_MIXED_NUMBER = re.compile(r"(?<![0-9.,])([0-9]+) +([0-9]+)/([0-9]+)(?![0-9])")
_GROUPED = re.compile(r"(?<![0-9.,] )(?<![0-9.,])[0-9]{1,3}(?: [0-9]{3})+(?! ?[0-9])")
_TWO_NUMBERS = re.compile(r"[0-9] +[0-9]|[0-9][eE][-+]?[0-9]")  # the parser adds "5 5", and reads 5e2 as 10e
_TEXT = re.compile(r"\\(?:text|mbox|mathrm|textbf) *\{([^{}]*)\}(?:\^\{?[23]\}?)?")
_UNIT = re.compile(r"[0-9}) ] *\\(?:text|mbox|mathrm|textbf) *\{([^{}]*)\}(?:\^\{?[23]\}?)?$")
_SHORT_BINOMIAL = re.compile(r"\\([dt]?binom) *([0-9])([0-9])")
_DIGIT = re.compile("[0-9]")
_PERCENT = re.compile(r" *\\?% *$")
_BASE = re.compile(r"^[0-9A-Fa-f]+_\{?([0-9]+)\}?$")
_PREFIX = re.compile(r"^ *[A-Za-z]\w* *(?:=|\\in(?![A-Za-z])) *")


def latex_of(raw: str) -> str | None:
    """Return an answer text as one line of LaTeX without math delimiters; None if it is not an answer."""
    if not raw.strip() or len(raw) > MAX_EXPRESSION_CHARS or not _is_nested_well(raw):
        return None
    text = _SPACES.sub(" ", _THIN_SPACES.sub("", _DELIMITERS.sub("", raw.translate(_CHARACTERS))))
    text = " ".join(text.split()).strip(_EMPHASIS).rstrip(" .,;:").strip(_EMPHASIS).lstrip("= ")
    text = text.replace("**", "^").replace(r"\boxed", "")
    text = _LEAD.sub("", text, count=1) if _LEAD.match(text) else text
    for _ in range(3):
        text = _ROOT.sub(lambda match: rf"\sqrt{{{match[1] or match[2] or match[3]}}}", text)
    text = _SHORT_BINOMIAL.sub(r"\\\1{\2}{\3}", _REPEATING.sub(_as_fraction, text))
    text = _MIXED_NUMBER.sub(r"\1\\frac{\2}{\3}", _SHORT_FRACTION.sub(r"\\\1{\2}{\3}", text))
    text = _GROUPED.sub(lambda match: match[0].replace(" ", ""), text)
    if _TWO_NUMBERS.search(text) or _changes_number(text):
        return None
    latex = _TOKENS.sub(_in_latex, text)
    if _has_words_between(latex):
        return None  # "18 apples and 5 pears": the parser stops at the first unit
    return _UNIT_I.sub(" i ", latex).strip() or None


def as_percent(latex: str) -> tuple[str, bool]:
    """Return an expression without its percent sign, and whether it has one."""
    body = _PERCENT.sub("", latex)
    return body, body != latex


def base_of(latex: str) -> str | None:
    """Return the base of a number such as `1101_2`."""
    match = _BASE.match(latex.replace(" ", ""))
    return None if match is None else match[1]


def units_differ(a: str, b: str) -> bool:
    """Return whether both expressions end with a unit in words, and no word of one starts like one of the other."""
    units = [_UNIT.search(latex.strip()) for latex in (a, b)]
    initials = [{word[0] for word in _WORDS.findall(unit[1].lower())} for unit in units if unit is not None]
    return len(initials) == 2 and all(initials) and not initials[0] & initials[1]


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


def _has_words_between(latex: str) -> bool:
    """Return whether words other than "and" and "or" stand between two numbers."""
    for token in _TEXT.finditer(latex):
        is_list = set(_WORDS.findall(token[1].lower())) <= _LISTS
        if not is_list and _DIGIT.search(latex, 0, token.start()) and _DIGIT.search(latex, token.end()):
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
