"""Which texts after a number leave its value unchanged: units and punctuation, but no scale and no further arithmetic.

In doubt a text changes the value: an answer that is refused costs a reward, one that is misread rewards a wrong answer.
"""

from __future__ import annotations

import re


def words(text: str) -> frozenset[str]:
    """Return the set of the words in a text."""
    return frozenset(text.split())


_MARKS = frozenset(" .,;:!'\"’()[]/%$€£₺₹¥°-。")
_CURRENCY = re.compile(
    r"[€£₺₹¥]|(?<![^\W\d_])(?:usd|eur|gbp|try|tl|dollars?|euros?|pounds?|lira|rupees?|rs)(?![^\W\d_])"
)
_WORD = re.compile(r"(?<!['’])[^\W\d_]+")  # not a suffix: "18'e", "dollar's"
_FIRST_WORD = re.compile(r"[ \-(\[/$€£₺₹¥]*([^\W\d_]+)(?!['’])")
_BRACKETED = re.compile(r"\([^()]*\)")

_STEMS = re.compile(
    r"hundred|thousand|(?:m|b|tr)illion|milliard|milion|mill[oó]n|quadrillion|quintillion|zillion|dozen|lakh|crore"
    r"|mil[iy]ar|milyon|trilyon|d[uü]zine|bu[cç]uk|tausend|тыс|милл|млн|млрд"
)
_SCALES = words(
    "k kk mn mln mil mio mlrd mrd mlr mlyr mly mille bn bln bil tn trn tln tril lac lacs cr crs thou thsd tsd "
    "hund tens grand gross score mega giga tera myriad half halves quarter thirds fourths fifths sixths sevenths "
    "eighths ninths tenths sixteenths yarim yarım ceyrek çeyrek"
)
_CJK_SCALES = frozenset("万萬亿億兆千百十만억천백")
_ARITHMETIC = words(
    "plus minus divided multiplied squared cubed factorial root sqrt mod modulo remainder power exponent base "
    "binary octal hex hexadecimal neg negative below pi π tau infinity x y z n arti artı eksi carpi çarpı bolu bölü"
)
_DOUBTS = words(
    "or veya about approx approximately roughly circa yaklasik yaklaşık not isn wrong incorrect never if unless "
    "except ish something degil değil yanlis yanlış"
)
_OTHER_VALUES = _SCALES | _ARITHMETIC | _DOUBTS
_NUMBER_WORDS = words(
    "zero two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety iki üç dört beş yedi sekiz dokuz "
    "yirmi otuz kırk elli altmış yetmiş seksen doksan"
)
_BEFORE_COUNTS = words("for per in of with every each from by at after the all these")  # "for two days"
_LETTER_UNITS = words("s h g l L")
_SPACED_LETTER_UNITS = words("m C F V W A N J")  # "5m" and "5M" may be millions
_MONEY_SCALES = words("mm l")
_LETTER_SCALES, _MONEY_LETTERS = words("k K M MM B T"), words("m mm b t l L")


def is_unit(tail: str, currency: bool, scales: frozenset[str]) -> bool:
    """Return whether the text after a number leaves its value unchanged.

    `currency`: a currency sign precedes the number, after which "5 m" is not a length. `scales` are further words that
    change the value in the text's language.
    """
    if tail[:1] == "!" or not all(c in _MARKS or (c.isalpha() and not c.isnumeric()) for c in tail):
        return False  # "5!" may be a factorial
    found = [_folded(word) for word in _WORD.findall(tail)]
    if any(changes_value(word) or word in scales for word in found) or _CJK_SCALES & set(tail):
        return False
    first = _FIRST_WORD.match(tail)
    money = currency or _CURRENCY.search(tail.lower()) is not None
    if first is not None and not _is_unit_word(first[1], tail, money, len(found)):
        return False
    return not _has_second_number(tail)


def scale_after(following: str, currency: bool) -> bool:
    """Return whether a scale such as "million" or "(in thousands)" follows a number within the same sentence.

    `currency`: a currency sign precedes the number, after which "5 m" is not a length.
    """
    sentence = re.split(r"[.;!?,\n]", following[:100], maxsplit=1)[0]
    found = [_folded(word) for word in _WORD.findall(sentence)[:4]]
    first = _FIRST_WORD.match(sentence)
    doubtful = currency or sentence[:1].isalpha()  # "5m" may be millions
    letter = first is not None and (first[1] in _LETTER_SCALES or (doubtful and first[1] in _MONEY_LETTERS))
    return letter or bool(_CJK_SCALES & set(sentence[:2])) or any(w in _SCALES or _STEMS.match(w) for w in found)


def _is_unit_word(word: str, tail: str, money: bool, count: int) -> bool:
    """Return whether the first word can be a unit; only few single letters are one."""
    attached = tail[:1].isalpha()
    if word == "MM" or (money and _folded(word) in _MONEY_SCALES):
        return False
    if len(word) > 1:
        return True
    if word == "a":
        return not attached and count > 1  # "18 a day"
    if money:
        return False
    return word in _LETTER_UNITS or (not attached and word in _SPACED_LETTER_UNITS)


def changes_value(word: str) -> bool:
    """Return whether a lower-case word next to a number makes another number of it, or leaves it in doubt."""
    return word in _OTHER_VALUES or _STEMS.match(word) is not None


def _has_second_number(tail: str) -> bool:
    """Return whether a number in words continues the first, as in "5 feet six"; "18 (eighteen)" repeats it."""
    previous = ""
    for word in map(_folded, _WORD.findall(_BRACKETED.sub(" ", tail))):
        if word in _NUMBER_WORDS and previous not in _BEFORE_COUNTS:
            return True
        previous = word
    return False


def _folded(word: str) -> str:
    return word.replace("İ", "i").lower()
