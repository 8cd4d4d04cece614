"""Gold answers as in MATH, each with equivalent re-writings and with near-misses, from a seeded generator."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """One gold answer."""

    gold: str
    equal: tuple[str, ...]
    wrong: tuple[str, ...]


def fraction(rng: random.Random) -> Case:
    a, b = rng.randrange(1, 30), rng.randrange(2, 30)
    if math.gcd(a, b) != 1 or b == 1:
        return fraction(rng)
    sign = rng.choice(("", "-"))
    forms = [
        rf"{sign}\frac{{{a}}}{{{b}}}",
        rf"{sign}\dfrac{{{a}}}{{{b}}}",
        f"{sign}{a}/{b}",
        rf"${sign}\tfrac{{{a}}}{{{b}}}$",
        rf"{sign}\frac{{{a * 3}}}{{{b * 3}}}",
        rf"\frac{{{sign}{a}}}{{{b}}}",
    ]
    if a < 10 and b < 10:
        forms.append(rf"{sign}\frac{a}{b}")
    if a > b:
        forms.append(rf"{sign}{a // b}\frac{{{a % b}}}{{{b}}}")
    wrong = (rf"{sign}\frac{{{a + 1}}}{{{b}}}", rf"{sign}\frac{{{a}}}{{{b + 1}}}", rf"{'' if sign else '-'}{a}/{b}")
    return Case(forms[0], tuple(forms[1:]), wrong)


def root(rng: random.Random) -> Case:
    k, n = rng.randrange(2, 9), rng.choice((2, 3, 5, 6, 7, 10, 11))
    equal = (
        rf"\sqrt{{{k * k * n}}}",
        rf"{k}*sqrt({n})",
        rf"\({k}\sqrt{{{n}}}\)",
        rf"{k} \cdot \sqrt{{{n}}}",
        f"{k}√{n}",
        rf"{k} \cdot {n}^{{1/2}}",
    )
    return Case(rf"{k}\sqrt{{{n}}}", equal, (rf"{k}\sqrt{{{n + 1}}}", rf"{k + 1}\sqrt{{{n}}}", rf"\sqrt{{{k * n}}}"))


def surd(rng: random.Random) -> Case:
    a, b, c = rng.randrange(1, 9), rng.choice((2, 3, 5, 7)), rng.randrange(2, 7)
    equal = (
        rf"\dfrac{{\sqrt{{{b}}}+{a}}}{{{c}}}",
        rf"\frac{{{a}}}{{{c}}} + \frac{{\sqrt{{{b}}}}}{{{c}}}",
        f"({a}+sqrt({b}))/{c}",
    )
    wrong = (rf"\frac{{{a}-\sqrt{{{b}}}}}{{{c}}}", rf"{a}+\frac{{\sqrt{{{b}}}}}{{{c}}}")
    return Case(rf"\frac{{{a}+\sqrt{{{b}}}}}{{{c}}}", equal, wrong)


def interval(rng: random.Random) -> Case:
    a, b = sorted(rng.sample(range(-9, 12), 2))
    left, right = rng.choice("[("), rng.choice("])")
    other = {"[": "(", "(": "[", "]": ")", ")": "]"}
    gold = f"{left}{a},{b}{right}"
    equal = (
        rf"\left{left}{a}, {b}\right{right}",
        f"${left}{a}, {b}{right}$",
        rf"x \in {left}{a},{b}{right}",
        rf"\left{left} \frac{{{a * 2}}}{{2}}, {b} \right{right}",
    )
    wrong = (f"{left}{a},{b + 1}{right}", f"{other[left]}{a},{b}{right}", f"{left}{a},{b}{other[right]}", str(a))
    return Case(gold, equal, wrong)


def union(rng: random.Random) -> Case:
    a, b = sorted(rng.sample(range(-9, 12), 2))
    gold = rf"(-\infty,{a})\cup({b},\infty)"
    equal = (rf"(-\infty, {a}) \cup ({b}, \infty)", rf"\left(-\infty,{a}\right)\cup\left({b},\infty\right)")
    return Case(gold, (*equal, f"(-∞, {a}) ∪ ({b}, ∞)"), (rf"(-\infty,{a}]\cup({b},\infty)", rf"(-\infty,{a})"))


def point(rng: random.Random) -> Case:
    n = rng.choice((2, 3, 3))
    values = rng.sample(range(-9, 20), n)
    values.sort(reverse=True)  # not an interval
    gold = f"({','.join(map(str, values))})"
    inner = ", ".join(map(str, values))
    doubled = ", ".join(rf"\frac{{{2 * value}}}{{2}}" for value in values)
    equal = (rf"\left({inner}\right)", f"$({inner})$", f"({doubled})")
    swapped = ",".join(map(str, reversed(values)))
    return Case(gold, equal, (f"({swapped})", rf"\{{{inner}\}}", f"({inner}, 1)", str(values[0])))


def finite_set(rng: random.Random) -> Case:
    values = rng.sample(range(-9, 30), rng.choice((2, 3, 4)))
    shuffled = rng.sample(values, len(values))
    braces = rng.random() < 0.5
    plain, mixed = ", ".join(map(str, values)), ", ".join(map(str, shuffled))
    gold = rf"\{{{plain}\}}" if braces else plain
    equal = (rf"\{{{mixed}\}}", rf"\left\{{ {plain} \right\}}", mixed, f"${mixed}$")
    if len(values) == 2:
        equal += (f"{values[1]} and {values[0]}", rf"${values[0]}$ or ${values[1]}$")
    changed = ", ".join(map(str, [*values[:-1], 77]))
    wrong = (rf"\{{{changed}\}}", ", ".join(map(str, values[:-1])), f"{plain}, 77", rf"\{{{plain}, 77\}}")
    return Case(gold, equal, wrong)


def percent(rng: random.Random) -> Case:
    n = rng.randrange(1, 99)
    equal = (f"{n}%", rf"${n}\%$", rf"${n}$%", f"{n} percent", f"{n}.0\\%", f"{n / 100:.2f}")
    return Case(rf"{n}\%", equal, (rf"{n + 1}\%", rf"{n / 10}\%", f"{n * 100}"))


def matrix(rng: random.Random) -> Case:
    cells = [[rng.randrange(-9, 10) for _ in range(2)] for _ in range(rng.choice((2, 2, 3)))]

    def written(rows: list[list[int]], kind: str = "pmatrix") -> str:
        return rf"\begin{{{kind}}} " + r" \\ ".join(" & ".join(map(str, row)) for row in rows) + rf" \end{{{kind}}}"

    tight = written(cells).replace(" ", "")
    changed = [row[:] for row in cells]
    changed[-1][-1] += 1
    columns = [list(column) for column in zip(*cells, strict=True)]
    if columns == cells:
        return matrix(rng)
    equal = (tight, written(cells, "bmatrix"), f"${written(cells)}$", f"\\[{written(cells)}\\]")
    return Case(written(cells), equal, (written(changed), written(columns), str(cells[0][0])))


def polynomial(rng: random.Random) -> Case:
    a, b = rng.randrange(1, 9), rng.randrange(1, 9)
    equal = (
        rf"(x+{a})(x+{b})",
        rf"{a * b}+{a + b}x+x^2",
        rf"$x^{{2}} + {a + b} \cdot x + {a * b}$",
        f"x**2 + {a + b}*x + {a * b}",
    )
    wrong = (rf"x^2+{a + b}x-{a * b}", rf"x^2+{a + b + 1}x+{a * b}", rf"y^2+{a + b}y+{a * b}")
    return Case(rf"x^2+{a + b}x+{a * b}", equal, wrong)


def with_pi(rng: random.Random) -> Case:
    a, b = rng.randrange(1, 20), rng.randrange(2, 9)
    if math.gcd(a, b) != 1:
        return with_pi(rng)
    equal = (rf"\frac{{{a}}}{{{b}}}\pi", rf"{a}\pi/{b}", f"{a}*pi/{b}", f"{a}π/{b}", rf"\dfrac{{{a} \pi}}{{{b}}}")
    return Case(rf"\frac{{{a}\pi}}{{{b}}}", equal, (rf"\frac{{{a + b}\pi}}{{{b}}}", rf"\frac{{{a}}}{{{b}}}"))


def number(rng: random.Random) -> Case:
    n = rng.randrange(1_000, 99_999)
    equal = (
        f"{n:,}",
        f"{n}.",
        f"${n}$.",
        f"\\${n:,}",
        f"{n}.00",
        rf"{n}\text{{ cm}}",
        f"{n} apples",
        f"x = {n}",
        f"{n:,}".replace(",", "{,}"),
        f"The answer is {n}.",
        rf"\text{{}}{n}",
    )
    return Case(str(n), equal, (str(n + 1), f"-{n}", f"{n} million", f"{n}.5", f"about {n}", f"{n} or {n + 1}"))


def decimal(rng: random.Random) -> Case:
    n = rng.randrange(101, 9_999)
    if n % 10 == 0:
        return decimal(rng)
    gold = f"{n / 100:.2f}"
    return Case(gold, (rf"\frac{{{n}}}{{100}}", f"{gold}0", f"${gold}$"), (f"{(n + 1) / 100:.2f}", f"{n / 10:.1f}"))


def equation(rng: random.Random) -> Case:
    m, b = rng.randrange(2, 9), rng.randrange(1, 9)
    equal = (rf"y = {m}x + {b}", rf"y - {m}x = {b}", rf"{m}x + {b} = y", rf"${m}x+{b}=y$")
    return Case(rf"y={m}x+{b}", equal, (rf"y={m}x-{b}", rf"y={m + 1}x+{b}", rf"x={m}y+{b}"))


def complex_number(rng: random.Random) -> Case:
    a, b = rng.randrange(1, 9), rng.randrange(2, 9)
    return Case(f"{a}+{b}i", (f"{b}i+{a}", rf"${a} + {b} i$"), (f"{a}-{b}i", f"{b}+{a}i" if a != b else "i"))


def power(rng: random.Random) -> Case:
    a, b = rng.choice((2, 3, 5)), rng.randrange(3, 7)
    return Case(f"{a}^{{{b}}}", (str(a**b), f"{a}^{b}", f"{a}**{b}"), (f"{a}^{{{b + 1}}}", str(a * b)))


def words(rng: random.Random) -> Case:
    name, other = rng.sample(("Evelyn", "Monday", "ellipse", "even", "Carla", "east"), 2)
    equal = (name, rf"\text{{{name}}}", rf"\textbf{{{name}}}", f"{name}.", f"**{name}**")
    return Case(rf"\text{{{name}}}", equal, (other, rf"\text{{{other}}}"))


KINDS: tuple[Callable[[random.Random], Case], ...] = (
    *(fraction, root, surd, interval, union, point, finite_set, percent, matrix, polynomial, with_pi, number),
    *(decimal, equation, complex_number, power, words),
)


def cases(count: int, seed: int = 0) -> list[Case]:
    """Return `count` cases, the kinds in turn."""
    rng = random.Random(seed)
    return [KINDS[index % len(KINDS)](rng) for index in range(count)]
