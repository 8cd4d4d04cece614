"""Units leave a number as it is; scales, arithmetic and doubts make it no number, in each format."""

from __future__ import annotations

import itertools

import pytest

from grpo_gsm8k.grading.answers import AnswerFormat, Locale, grade, parse_number

EN, TR = Locale.EN, Locale.TR
UNITS = """18 dollars|18 apples|18 m|18 kg|18 mm|18g|18L|18 h|18/day|18 miles/hour|18 °C|18 C|18-year-old|18 a day
$18 a day|$18 per day|$18 each|18 for two days|18 pairs|18 quarters|18 more|18 (eighteen)|18%|18 percent
18 cents|18 USD
18 third graders|18 o'clock|18 times|18 minutes.|18 millimeters|18 km²|18 feet|18 kişi|18 dollars in total""".replace(
    "\n", "|"
).split("|")


@pytest.mark.parametrize("raw", UNITS)
def test_units(raw: str) -> None:
    assert parse_number(raw, EN) == 18


SCALES_EN = """5 million|5 Million|5million|5-million|5 millions|5 (million)|5 (in millions)|5 (in thousands)
5 in thousands
5 dollars (in thousands)|$5M|$5m|$5 m|$ 5 M|5M|5 M|5m|5MM|$5mm|$5 mm|5 mn|5mn|5 mln|5 mio|5 mil|5 bn|5bn|5B
$5B|5 bil|$5b
5 tn|5T|$5t|5 trn|5 trillion|5 billion|5 milliard|5k|5K|5 k|5 K|$5k|$5K|5 thousand|5 thou|5 hundred|5 hundred thousand
5 lakh|5 lakhs|5 lac|₹5 L|₹5L|₹5 lakh|5 crore|5 crores|5 cr|₹5 Cr|5 dozen|5 dozens|5 grand|5 score|5 gross|5 halves
5 thirds|5 tenths|5 and a half|5 and one half|5 and a quarter|5 and three quarters|€5m|£5m|5m USD|5m €|USD 5m|5 M€
5\\text{ million}|5~\\text{million}|\\$5\\text{M}|5\\,\\mathrm{bn}|\\text{5 million}|5万|5 亿|5千|5 млн
5 millones|5 Millionen
５ million|5\u00a0million|5\u200bmillion|5 mega|5 US million|5 trillion dollars""".replace("\n", "|").split("|")
SCALES_TR = [
    "5 bin",
    "5 bin'dir",
    "5 bindir",
    "5 milyon",
    "5 MİLYON",
    "5 milyar",
    "5 milyonluk",
    "5 trilyon",
    "5 yüz",
    "5 düzine",
    "5 buçuk",
    "5 mn",
]


@pytest.mark.parametrize(
    ("raw", "locale"), [*((raw, EN) for raw in SCALES_EN), *((raw, TR) for raw in [*SCALES_TR, "5 million", "$5M"])]
)
def test_a_scale_is_never_dropped(raw: str, locale: Locale) -> None:
    assert parse_number(raw, locale) is None
    for text, fmt in [
        (f"#### {raw}", AnswerFormat.HASH),
        (f"ANSWER: {raw}", AnswerFormat.ANSWER),
        (rf"\boxed{{{raw}}}", AnswerFormat.BOXED),
        (f"#### The answer is {raw}", AnswerFormat.HASH),
    ]:
        assert not grade(text, "5", fmt, locale).well_formed


AFTER_THE_BOX = [" million", r"\text{ million}", " (million)", " (in thousands)", " thousand dollars", "$ million",
                 r"\$ million", r"\) million", "k", "M", " bn", " lakh", "/4", r"\frac{1}{2}", "^2", "x",
                 r"\times 10^3",
                 r" \times 10^{3}", ",234", ".5", "e6", " dozen", "-3", " - 3",
                 " + 3", ":19", " or 19", r"\text{ or }19", "万"]  # fmt: skip
BEFORE_THE_BOX = [
    "2",
    "10",
    r"\approx ",
    r"\sqrt{",
    r"\boxed{4} or ",
    "-",
    "$-",
    "x = -",
    "\u2212",
    "1/",
    "2^",
    r"\frac{",
]


@pytest.mark.parametrize("after", AFTER_THE_BOX)
def test_text_after_a_box_counts(after: str) -> None:
    assert not grade(rf"It is $\boxed{{5}}{after}", "5", AnswerFormat.BOXED, EN).correct


@pytest.mark.parametrize("before", BEFORE_THE_BOX)
def test_text_before_a_box_counts(before: str) -> None:
    assert not grade(rf"So {before}\boxed{{5}}", "5", AnswerFormat.BOXED, EN).correct


@pytest.mark.parametrize(
    "text",
    [r"- \boxed{5}", r"**\boxed{5}**", r"$\boxed{5}$.", r"= \boxed{5}", r"\boxed{5} dollars. A million thanks!",
     r"\boxed{5}\%", r"\boxed{5}!", r"\(\boxed{5}\), as 1 million is too much", r"\[ \boxed{5} \]",
     r"\boxed{5}, 2 left"],
)  # fmt: skip
def test_text_around_a_box_that_changes_nothing(text: str) -> None:
    assert grade(text, "5", AnswerFormat.BOXED, EN).correct


def test_signs_and_fractions_around_a_box_are_read() -> None:
    assert grade(r"$-\boxed{5}$", "-5", AnswerFormat.BOXED, EN).correct
    assert grade(r"$\boxed{3}/4$", "0.75", AnswerFormat.BOXED, EN).correct


@pytest.mark.parametrize(
    "text",
    [
        "It is 5 million.",
        "It is $5M",
        "It is 5k.",
        "5 (in thousands)",
        "10^5",
        "2^{5}",
        "5²",
        "5½",
        "1/2/5",
        "$5m",
        "5m",
        "$5 m.",
    ],
)
def test_the_last_number_keeps_its_scale(text: str) -> None:
    assert not grade(text, "5", AnswerFormat.LAST_NUMBER, EN).well_formed


NONE = """3-5|3 - 5|3–5|3 to 5|3..5|3...5|3/4/5|3:45|3:45 pm|1.2.3|v1.2|2024-05-12|12/05/2024|12.05.2024|5 May 2024
18 or 19|18 or nineteen|18 and 19|either 18 or 19|18, 19|18; 19|18 19|(18, 19)|[18, 19]|{18, 19}|x = 5, y = 6
x=5 or x=-5
555-1234|(555) 123-4567|+1 555 123 4567|2^10|10^6|1e6|1E6|1.5e-3|2**3|3:4|3 : 4|3 to four|5 feet 6 inches|5 feet six
5 point two|about 18|~18|≈18|18 approx|around 18|18 roughly|<18|>18|≥18|≤18|±18|18±1|18+|18+1|18 = x|18 = 18|2x = 18
18x|18 x|18n|18y|18a|18b|18 plus x|18 minus tax|18 squared|18 factorial|18!|18 remainder|18 if sold
18 or more|18 or so
18?|($18)|$(18)|18ish|18-something|18 neg|18 zero|18 not 19|18 (not nineteen)|18 is wrong|18 hex|101 base two
0x12|1_800|#18|No. 18|18th of 20|18/x|18 / 2
-x = 18|1,2|1,23
12,34|1,2345|0,5|1,234,56|,5|18,,|18..|5 below zero|5 negative|18e|18i|18pi|18π|18 over x|none|NaN|inf|eighteen"""


@pytest.mark.parametrize("raw", [raw for line in NONE.split("\n") for raw in line.split("|")])
def test_not_exactly_one_number(raw: str) -> None:
    assert parse_number(raw, EN) is None


def test_a_unit_never_changes_the_value() -> None:
    words = ["", " kg", " m", "M", " million", "k", " bn", "%", " dollars", " and a half", "x", " or 6", "!", "."]
    separate = [word for word in words if not word[:1].isalpha()]
    for before, after, more in itertools.product(["", "$", "-", "~", "about "], words, separate):
        number = parse_number(f"{before}5{after}{more}", EN)
        assert number is None or (number == (-5 if before == "-" else 5) and not {after, more} & set(words[3:7]))
