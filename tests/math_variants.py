r"""Seeded variants of the kinds of answers that a math grader gets wrong, each with its truth.

`variants(seed, each)` yields rows `(kind, gold, response, truth)`; truth is 1.0 or 0.0. Every kind is one function of a
random stream: other numbers, other letters, other spellings at each call.
"""

import random
from collections.abc import Callable, Iterator
from fractions import Fraction
from math import comb, gcd, isqrt, log10

Row = tuple[str, str, float]
"""Gold answer, response, truth."""

Stream = random.Random
_KINDS: list[Callable[[Stream], Iterator[Row]]] = []


def kind(function: Callable[[Stream], Iterator[Row]]) -> Callable[[Stream], Iterator[Row]]:
    _KINDS.append(function)
    return function


def variants(seed: int, each: int) -> Iterator[tuple[str, str, str, float]]:
    """`each` draws of every kind; a draw gives one or more rows."""
    for make in _KINDS:
        stream = random.Random(f"{seed} {make.__name__}")
        for _ in range(each):
            for gold, response, truth in make(stream):
                yield make.__name__, gold, response, truth


def box(answer: object) -> str:
    return f"\\boxed{{{answer}}}"


def letter(stream: Stream, letters: str = "abcmnpqrstuvxyz") -> str:
    return stream.choice(letters)


def frac(value: Fraction) -> str:
    sign = "-" if value < 0 else ""
    top, bottom = abs(value.numerator), value.denominator
    return f"{sign}{top}" if bottom == 1 else f"{sign}\\frac{{{top}}}{{{bottom}}}"


# ---- false accepts of others


@kind
def products(stream: Stream) -> Iterator[Row]:
    a, b, c = (stream.randint(2, 30) for _ in range(3))
    forms = (f"{a}({b})", f"({a})({b})", f"{a}\\left({b}\\right)", f"{a} ({b})", f"{a}\\cdot({b})", f"{a}[{b}]")
    form = stream.choice(forms)
    yield str(a * b), box(form), 1.0
    if a + b != a * b:
        yield str(a + b), box(form), 0.0
    yield form, box(a * b), 1.0
    yield str(a * b * c), box(f"{a}({b})({c})"), 1.0
    yield str(a + b + c), box(f"{a}({b})({c})"), 0.0
    half = stream.choice((f"\\left(\\frac{{1}}{{{b}}}\\right)", f"(\\frac1{{{b}}})", f"(1/{b})"))
    yield frac(a + Fraction(1, b)), box(f"{a}{half}"), 0.0
    yield frac(Fraction(a, b)), box(f"{a}{half}"), 1.0


@kind
def rounded_names(stream: Stream) -> Iterator[Row]:
    name = stream.choice(("x", "y", "t", "r", r"\theta", r"\text{Area}", "A", "x_1", "V"))
    value, other = stream.sample(range(10, 999), 2)
    gold = f"{name} \\approx {value / 100}"
    yield gold, box(f"{name} \\approx {other / 100}"), 0.0
    yield gold, box(f"{name} \\approx {value / 100}"), 1.0
    yield gold, box(f"{name} = {value / 100}"), 1.0
    yield gold, box(value / 100), 1.0
    yield gold, box(other / 100), 0.0


@kind
def rounded_values(stream: Stream) -> Iterator[Row]:
    n = stream.choice([n for n in range(2, 200) if isqrt(n) ** 2 != n])
    digits = stream.randint(1, 4)
    value = f"{n**0.5:.{digits}f}"
    wrong = f"{n**0.5 + stream.choice((-3, 2, 5)) * 10**-digits:.{digits}f}"
    exact = stream.choice((f"\\sqrt{{{n}}}", f"\\sqrt {n}", f"√{n}"))
    yield value, box(f"{exact} \\approx {value}"), 1.0
    yield f"\\sqrt{{{n}}}", box(f"{exact} \\approx {value}"), 1.0
    yield f"\\sqrt{{{n}}}", box(f"{exact} \\approx {wrong}"), 0.0
    yield wrong, box(f"{exact} \\approx {wrong}"), 0.0
    yield f"\\sqrt{{{n}}}", box(value), 0.0
    yield value, box(f"x = {exact} ≈ {value}"), 1.0


@kind
def unsolvable_equations(stream: Stream) -> Iterator[Row]:
    x, y = stream.sample("abmnpqrstuvxyz", 2)
    a, b, k = stream.randint(1, 20), stream.randint(21, 50), stream.randint(2, 9)
    yield f"{x}^2 + {a} = 0", box(f"{x}^2 + {b} = 0"), 0.0
    yield f"{x}^2 + {a} = 0", box(f"{k}{x}^2 + {k * a} = 0"), 1.0
    yield f"{x}^2 + {a} = 0", box(f"{x}^2 = -{a}"), 1.0
    yield f"{x}^2 + {y}^2 + {a} = 0", box(f"{x}^2 + {y}^2 + {b} = 0"), 0.0
    yield f"{x}^2 + {y}^2 + {a} = 0", box(f"{a} + {y}^2 + {x}^2 = 0"), 1.0
    yield f"{x}^4 = -{a}", box(f"{x}^4 = -{b}"), 0.0


@kind
def claims_on_numbers(stream: Stream) -> Iterator[Row]:
    a, b, c, d = stream.sample(range(2, 60), 4)
    yield f"{a} + {b} = {a + b}", box(f"{c} + {d} = {c + d}"), 0.0
    yield f"{a} + {b} = {a + b}", box(f"{a}+{b}={a + b}"), 1.0
    yield f"{a} + {b} = {a + b}", box(a + b), 1.0
    yield f"{a} + {b} = {a + b}", box(a + b + 1), 0.0
    yield str(a + b), box(f"{a} + {b} = {a + b}"), 1.0
    yield str(a + b + 1), box(f"{a} + {b} = {a + b + 1}"), 0.0


@kind
def chains(stream: Stream) -> Iterator[Row]:
    x = letter(stream)
    bottom = stream.choice((2, 4, 5, 8, 20, 25))
    one, other = stream.sample(range(1, 40), 2)
    value, wrong = Fraction(one, bottom), Fraction(other, bottom)
    gold = f"{x} = \\frac{{{one}}}{{{bottom}}} = {float(value)}"
    yield gold, box(frac(value)), 1.0
    yield gold, box(float(value)), 1.0
    yield gold, box(f"{x} = {frac(value)}"), 1.0
    yield gold, box(f"{x} = {frac(wrong)} = {float(wrong)}"), 0.0
    yield gold, box(frac(wrong)), 0.0
    yield gold, box(f"{x} = {frac(value)} = {float(wrong)}"), 0.0


@kind
def identities(stream: Stream) -> Iterator[Row]:
    x = letter(stream)
    a, b = stream.sample(range(1, 15), 2)
    gold = f"({x}+{a})^2 = {x}^2 + {2 * a}{x} + {a * a}"
    yield gold, box(f"({x}+{b})^2 = {x}^2 + {2 * b}{x} + {b * b}"), 0.0
    yield gold, box(f"({x} + {a})^2 = {a * a} + {2 * a}{x} + {x}^2"), 1.0
    yield gold, box("0 = 0"), 0.0


@kind
def primes_and_derivatives(stream: Stream) -> Iterator[Row]:
    f, x, y = stream.choice("fghFG"), *stream.sample("uvwxyzst", 2)
    yield f"{f}'({x})", box(f"{f}({x})"), 0.0
    yield f"{f}''({x})", box(f"{f}'({x})"), 0.0
    yield f"{f}({x})", box(f"{f}'({x})"), 0.0
    yield f"{f}'({x})", box(f"{f}' ({x})"), 1.0
    yield f"\\frac{{d{y}}}{{d{x}}}", box(f"\\frac{{d{x}}}{{d{y}}}"), 0.0
    yield f"\\frac{{d{y}}}{{d{x}}}", box(f"\\dfrac{{d{y}}}{{d{x}}}"), 1.0
    yield f"\\frac{{d{y}}}{{d{x}}}", box("0"), 0.0
    yield f"\\frac{{\\partial {f}}}{{\\partial {x}}}", box(f"\\frac{{\\partial {f}}}{{\\partial {y}}}"), 0.0
    yield f"\\dot{{{x}}}", box(x), 0.0


@kind
def divisors_of_letters(stream: Stream) -> Iterator[Row]:
    a, b, c = stream.sample("abcdmnpq", 3)
    name = stream.choice((r"\gcd", r"\operatorname{lcm}", r"\max", r"\min"))
    yield f"{name}({a},{b})", box(f"{name}({a},{c})"), 0.0
    yield f"{name}({a},{b})", box(f"{name}({a}, {b})"), 1.0
    yield f"{name}({a},{b})", box("1"), 0.0
    m, n = stream.randint(2, 90), stream.randint(2, 90)
    yield str(gcd(m, n)), box(f"\\gcd({m},{n})"), 1.0
    yield str(gcd(m, n) + 1), box(f"\\gcd({m}, {n})"), 0.0


@kind
def vectors_and_points(stream: Stream) -> Iterator[Row]:
    a, b = stream.sample("abuvw", 2)
    p, q, r, s = stream.sample("ABCDEFGHKLMN", 4)
    yield f"\\vec{{{a}}}\\cdot\\vec{{{b}}}", box(f"\\vec{{{a}}}\\times\\vec{{{b}}}"), 0.0
    yield f"\\vec{{{a}}}\\times\\vec{{{b}}}", box(f"\\vec{{{b}}}\\times\\vec{{{a}}}"), 0.0
    yield f"\\mathbf{{{a}}}\\cdot\\mathbf{{{b}}}", box(f"\\mathbf{{{a}}}\\times\\mathbf{{{b}}}"), 0.0
    yield f"\\vec{{{a}}}\\cdot\\vec{{{b}}}", box(f"\\vec{{{a}}} \\cdot \\vec{{{b}}}"), 1.0
    mark = stream.choice((r"\angle", r"\triangle"))
    yield f"{mark} {p}{q}{r}", box(f"{mark} {p}{r}{q}"), 0.0
    yield f"{mark} {p}{q}{r}", box(f"{mark}{{{p}{q}{r}}}"), 0.0 if mark == "" else 0.0
    yield f"{mark} {p}{q}{r}", box(f"{mark}  {p}{q}{r}"), 1.0
    yield f"{p}{q} \\cdot {r}{s}", box(f"{p}{r} \\cdot {q}{s}"), 0.0
    yield f"\\overline{{{p}{q}}}", box(f"\\overline{{{p}{r}}}"), 0.0
    yield f"{p}^T", box(p), 0.0
    yield f"({p}{q})^T", box(f"{p}^T {q}^T"), 0.0


@kind
def degrees(stream: Stream) -> Iterator[Row]:
    n = stream.randint(1, 89)
    yield f"\\sin {n}^\\circ", box(f"\\sin {n}"), 0.0
    yield f"\\sin {n}", box(f"\\sin {n}^{{\\circ}}"), 0.0
    yield f"\\sin {n}^\\circ", box(f"\\cos {90 - n}^\\circ"), 1.0
    yield f"\\sin {n}^\\circ", box(f"\\sin({n}°)"), 1.0
    angle, function, value = stream.choice(
        ((60, "cos", r"\frac{1}{2}"), (30, "sin", "0.5"), (45, "tan", "1"), (45, "sin", r"\frac{\sqrt{2}}{2}"),
         (60, "sin", r"\frac{\sqrt{3}}{2}"), (180, "cos", "-1"), (120, "cos", r"-\frac12"), (60, "tan", r"\sqrt3"))
    )  # fmt: skip
    yield value, box(f"\\{function} {angle}^\\circ"), 1.0
    yield f"{n}", box(f"{n}^\\circ"), 1.0


@kind
def second_units(stream: Stream) -> Iterator[Row]:
    n = stream.randint(2, 500)
    unit, words, others = stream.choice(
        (("m/s", "meters per second", ("m", "s", "m/s^2", "km/h")), ("km/h", "km per hour", ("km", "m/s", "h")),
         ("mph", "miles per hour", ("miles", "km/h")), ("ft/s", "feet per second", ("ft", "m/s")),
         ("g/cm^3", "grams per cubic centimeter", ("g", "g/cm^2")), ("kg", "kilograms", ("g", "kg/s")))
    )  # fmt: skip
    yield f"{n} \\text{{ {unit}}}", box(f"{n} \\text{{ {stream.choice(others)}}}"), 0.0
    yield f"{n} \\text{{ {unit}}}", box(f"{n} {words}"), 1.0
    yield f"{n} \\text{{ {unit}}}", box(f"{n}\\,\\mathrm{{{unit}}}"), 1.0
    yield f"{n} \\text{{ {unit}}}", box(n), 1.0
    yield f"{n}\\pi \\text{{ {unit}}}", box(f"{n}\\pi\\text{{ {stream.choice(others)}}}"), 0.0


@kind
def members(stream: Stream) -> Iterator[Row]:
    x, y = stream.sample("abktxyz", 2)
    low = stream.randint(-9, 9)
    high = low + stream.randint(1, 9)
    yield f"{y} \\in [{low}, {high}]", box(f"{x} \\in [{low}, {high}]"), 0.0
    yield f"{y} \\in [{low}, {high}]", box(f"{y} \\in [{low},{high}]"), 1.0
    yield f"{y} \\in [{low}, {high}]", box(f"[{low},{high}]"), 1.0
    yield f"{y} \\in [{low}, {high}]", box(f"{low} \\le {y} \\le {high}"), 1.0
    yield f"{y} \\in [{low}, {high}]", box(f"{low} \\le {x} \\le {high}"), 0.0
    yield f"{y} \\in [{low}, {high}]", box(f"{y} \\in [{low},{high})"), 0.0


@kind
def sets_in_sets(stream: Stream) -> Iterator[Row]:
    a, b, c = stream.sample(range(1, 50), 3)
    yield f"\\{{\\{{{a},{b}\\}},{c}\\}}", box(f"\\{{{a},{b},{c}\\}}"), 0.0
    yield f"\\{{{a},{b},{c}\\}}", box(f"\\{{{a},\\{{{b},{c}\\}}\\}}"), 0.0
    yield f"\\{{\\{{{a},{b}\\}},{c}\\}}", box(f"\\{{{c}, \\{{{b}, {a}\\}}\\}}"), 1.0
    yield f"\\{{{a},{b},{c}\\}}", box(f"\\{{{c}, {a}, {b}\\}}"), 1.0
    for wrong in (f"\\{{{a}\\}}", f"[{a}]", f"{a}:1", f"{c}\\boxed{{{a}}}", f"\\{{{a}, {b}\\}}"):
        yield str(a), box(wrong), 0.0


@kind
def words_behind_numbers(stream: Stream) -> Iterator[Row]:
    n = stream.randint(2, 99)
    changing = (
        "elevenths quarters twentieths billionths reciprocal inverse halves dozen pairs squared cubed score tenths "
        "hundredths factorial radicals modulo prime fold doubled hundred twelfths gross mod percentiles"
    ).split()
    nouns = "apples eggs dollars people students marbles ways hours red marbles,more books,cups of flour".split(",")
    word = stream.choice(changing)
    yield str(n), box(f"{n} {word}"), 0.0
    yield str(n), box(f"{n} \\text{{ {word}}}"), 0.0
    yield str(n), f"The answer is {n} {word}.", 0.0
    noun = stream.choice([*nouns[0].split()[:7], *nouns[1:]])
    yield str(n), box(f"{n} {noun}"), 1.0
    yield str(n), box(f"{n}\\text{{ {noun}}}"), 1.0
    yield str(n), f"The answer is {n} {noun}.", 1.0


# ---- sentences


@kind
def sentences(stream: Stream) -> Iterator[Row]:
    n, other = stream.sample(range(13, 99), 2)
    a = stream.randint(2, 9)
    noun = stream.choice(("marbles", "apples", "students", "dollars", "eggs", "books"))
    yield str(n), f"Final Answer: The final answer is ${n}$. I hope it is correct.", 1.0
    yield str(other), f"Final Answer: The final answer is ${n}$. I hope it is correct.", 0.0
    yield str(n), f"The answer is {other}. No, the answer is {n}.", 1.0
    yield str(other), f"The answer is {other}. No, the answer is {n}.", 0.0
    yield str(n), f"Final Answer: The number of {noun} left is {n}.", 1.0
    yield str(n), f"Answer: She has {n} {noun}.", 1.0
    yield str(n), f"Answer: She has {n} {noun} and {other} in the box.", 0.0
    yield str(n * a), f"The answer is {n} * {a} = {n * a}.", 1.0
    yield str(n), f"The answer is {n} * {a} = {n * a}.", 0.0
    yield str(n + a), f"The answer is {n} + {a} = {n + a} {noun}.", 1.0
    yield str(n), f"The answer is \\boxed {n}.", 1.0
    choice = letter(stream, "ABCDE")
    mark = stream.choice((f"{choice}) {n}", f"({choice}) {n}", f"{choice}. {n}", f"({choice})", choice))
    yield choice, f"Answer: {mark}", 1.0
    yield "E" if choice != "E" else "A", f"Answer: {mark}", 0.0
    yield str(n), f"The answer is {n} or {other}.", 0.0
    yield str(n), f"The answer is {n} - {a}.", 0.0


@kind
def numbers_inside_formulas(stream: Stream) -> Iterator[Row]:
    a, b = stream.sample(range(2, 40), 2)
    intro = stream.choice(("So the value is", "This gives", "Hence we get", "In the end it is"))
    forms = (
        f"$\\frac{{{a}}}{{{b}}}$", f"${a}^{b}$", f"$({a}, {b})$", f"{a}^{b}", f"({a}, {b})", f"{a}/{b}", f"{a}e{b}",
        f"\\frac{{{a}}}{{{b}}}", f"$\\sqrt{{{b}}}$", f"$x_{{{b}}}$", f"$x < {b}$", f"\\({a}x + {b}\\)", f"$[{a}, {b}]$",
        f"$\\{{{a}, {b}\\}}$", f"{a}\\sqrt{{{b}}}", f"$|x - {b}|$",
    )  # fmt: skip
    yield str(b), f"{intro} {stream.choice(forms)}.", 0.0
    yield frac(Fraction(a, b)), f"{intro} $\\frac{{{a}}}{{{b}}}$.", 1.0
    yield f"({a}, {b})", f"{intro} $({a}, {b})$.", 1.0
    yield str(10 ** (a % 7)), f"{intro} 1e{a % 7}", 1.0
    yield str(b), f"{intro} {b}.", 1.0
    yield str(a - b), f"{intro} {a} - {b} = {a - b}.", 1.0


# ---- numbers and units


@kind
def thousands(stream: Stream) -> Iterator[Row]:
    n = stream.randint(10**6, 10**10)
    parts = f"{n:,}".split(",")
    spelled = stream.choice((r",\! ", r",\!", r", \! ", r"{,}", r"\,", ",", r"\!,")).join(parts)
    yield str(n), box(spelled), 1.0
    yield spelled, box(n), 1.0
    yield str(n + 1), box(spelled), 0.0
    yield str(n), box(", ".join(parts)), 0.0


@kind
def text_commands(stream: Stream) -> Iterator[Row]:
    n, command = (
        stream.randint(2, 300),
        stream.choice("text textnormal textsf textup mbox textrm mathrm texttt".split()),
    )
    unit, other = stream.sample("km kg cm hours feet pounds".split(), 2)
    yield str(n), box(f"{n}\\{command}{{ {unit}}}"), 1.0
    yield f"{n} \\text{{ {other}}}", box(f"{n}\\{command}{{ {unit}}}"), 0.0
    yield f"{n} {unit}", box(f"{n}\\,\\{command}{{{unit}}}"), 1.0
    yield str(n), box(f"{n}\\operatorname{{{unit}}}"), 1.0


@kind
def letters_as_units(stream: Stream) -> Iterator[Row]:
    n = stream.randint(2, 300)
    unit, other = stream.sample(["N", "J", "A", "V", "W", "K", "C", "F", "Hz", "T", "Pa", "mol", "m", "s", "g"], 2)
    yield str(n), box(f"{n} \\text{{ {unit}}}"), 1.0
    yield f"{n} \\text{{ {other}}}", box(f"{n} \\text{{ {unit}}}"), 0.0
    yield str(n), box(f"{n}{unit}"), 0.0 if len(unit) == 1 else 1.0
    yield str(n), box(f"{n}\\mathrm{{i}}"), 0.0


@kind
def powers_of_ten(stream: Stream) -> Iterator[Row]:
    k, m = stream.sample(range(1, 9), 2)
    yield f"{10**-k:.{k}f}", box(f"10^-{k}"), 1.0
    yield f"{10**-k:.{k}f}", box(f"10^{{-{k}}}"), 1.0
    yield f"{10**-k:.{k}f}", box(f"10^-{m}"), 0.0
    yield str(10**k), box(f"1e{k}"), 1.0
    yield str(k), box(f"1e{k}"), 0.0
    yield f"{10**k}", box(f"10^{{{k}}}0"), 0.0
    yield f"{3 * 10**-k:.{k}f}", box(f"3 \\times 10^-{k}"), 1.0


@kind
def roots(stream: Stream) -> Iterator[Row]:
    n = stream.choice([n for n in range(11, 99) if isqrt(n) ** 2 != n])
    form = stream.choice((f"√{n}", f"\\sqrt {n}", f"\\sqrt{n}", f"sqrt({n})", f"sqrt {n}", f"\\sqrt{{{n}}}"))
    yield f"\\sqrt{{{n}}}", box(form), 1.0
    yield f"\\sqrt{{{n // 10}}}", box(form), 0.0
    yield f"\\sqrt{{{n + 1}}}", box(form), 0.0
    a = stream.randint(2, 9)
    yield f"{a}\\sqrt{{{n}}}", box(f"{a}*sqrt({n})"), 1.0
    yield f"{a}\\sqrt{{{n}}}", box(f"\\sqrt{{{a * a * n}}}"), 1.0
    yield f"{a}\\sqrt{{{n}}}", box(f"{a}+sqrt({n})"), 0.0


# ---- formulas


@kind
def logarithms(stream: Stream) -> Iterator[Row]:
    base, k = stream.randint(2, 9), stream.randint(2, 5)
    n = base**k
    form = stream.choice((f"\\log_{base} {n}", f"\\log_{{{base}}}{n}", f"\\log_{base}({n})", f"\\log_{{{base}}}({n})"))
    yield str(k), box(form), 1.0
    yield str(k + 1), box(form), 0.0
    a, b = stream.randint(2, 9), stream.randint(2, 9)
    yield f"\\log {a * b}", box(f"\\log {a} + \\log {b}"), 1.0
    yield f"\\log {a * b}", box(f"\\ln {a * b}"), 0.0
    yield str(k), box(f"\\log {10**k}"), 0.0
    yield f"\\ln {a**2}", box(f"2 \\ln {a}"), 1.0


@kind
def lines(stream: Stream) -> Iterator[Row]:
    x, y = stream.choice(("xy", "ab", "st", "uv", "pq"))
    a, b, c, k = stream.randint(1, 9), stream.randint(1, 9), stream.randint(1, 20), stream.randint(2, 5)
    gold = f"{a}{x} + {b}{y} - {c} = 0".replace("1" + x, x) if a == 1 else f"{a}{x} + {b}{y} - {c} = 0"
    slope = f"{y} = {frac(Fraction(-a, b))}{x} + {frac(Fraction(c, b))}"
    yield gold, box(slope), 1.0
    yield gold, box(f"{k * a}{x} + {k * b}{y} = {k * c}"), 1.0
    yield gold, box(f"{y} = {frac(Fraction(-a, b))}{x} - {frac(Fraction(c, b))}"), 0.0
    yield gold, box(f"{y} = {frac(Fraction(a, b))}{x} + {frac(Fraction(c, b))}"), 0.0
    yield slope, box(gold), 1.0
    yield gold, box("0 = 0"), 0.0


@kind
def products_as_names(stream: Stream) -> Iterator[Row]:
    x, y, z = stream.sample("abcmnpqrstuvxyz", 3)
    n = stream.randint(2, 90)
    yield f"{x}{y} = {n}", box(f"{y}{x} = {n}"), 1.0
    yield f"{x}{y} = {n}", box(f"{y}{x} = {n + 1}"), 0.0
    yield f"{x}{y} = {n}", box(f"{x}{z} = {n}"), 0.0
    yield f"{x}{y} = {n}", box(f"{x} \\cdot {y} = {n}"), 1.0
    yield f"{x}{y}{z} = {n}", box(f"{z}{x}{y} = {n}"), 1.0


@kind
def named_tuples(stream: Stream) -> Iterator[Row]:
    x, y = stream.sample("abcmnpqrstuvxyz", 2)
    a, b = stream.sample(range(-20, 40), 2)
    yield f"{x} = {a}, {y} = {b}", box(f"({x}, {y}) = ({a}, {b})"), 1.0
    yield f"{x} = {a}, {y} = {b}", box(f"({y}, {x}) = ({b}, {a})"), 1.0
    yield f"{x} = {a}, {y} = {b}", box(f"({x}, {y}) = ({b}, {a})"), 0.0
    yield f"({x},{y}) = ({a},{b})", box(f"{x} = {a}, {y} = {b}"), 1.0
    yield f"({x},{y}) = ({a},{b})", box(f"{x} = {b}, {y} = {a}"), 0.0
    yield f"({a},{b})", box(f"({x}, {y}) = ({a}, {b})"), 1.0


@kind
def names(stream: Stream) -> Iterator[Row]:
    p, q, r, s = stream.sample("ABCDEFGHKLMN", 4)
    a, b = stream.sample("abcmnpqrst", 2)
    n = stream.randint(2, 60)
    name = stream.choice(
        (f"|{p}{q}|", f"\\frac{{{a}}}{{{b}}}", f"P({p} \\cap {q})", f"P({p}|{q})", f"\\overline{{{p}{q}}}", f"{p}{q}",
         f"\\frac{{{p}{q}}}{{{r}{s}}}", f"E[{p}]", f"\\angle {p}{q}{r}", f"{a}_{{1}}", f"f({n})", f"\\text{{Area}}")
    )  # fmt: skip
    yield str(n), box(f"{name} = {n}"), 1.0
    yield str(n + 1), box(f"{name} = {n}"), 0.0
    yield str(n), box(f"|{a}| = {n}"), 0.0
    yield str(n), box(f"\\frac{{{a}}}{{2}} = {n}"), 0.0
    yield str(n), box(f"2{a} = {n}"), 0.0


@kind
def unions(stream: Stream) -> Iterator[Row]:
    x, y = stream.sample("akntxyz", 2)
    low = stream.randint(-20, 20)
    high = low + stream.randint(1, 20)
    gold = f"(-\\infty,{low})\\cup({high},\\infty)"
    join = stream.choice((r" \text{ or } ", " or ", r" \lor ", r"\text{ or }"))
    yield gold, box(f"{x} < {low}{join}{x} > {high}"), 1.0
    yield gold, box(f"{x} > {high}{join}{x} < {low}"), 1.0
    yield gold, box(f"{x} < {low} \\text{{ and }} {x} > {high}"), 0.0
    yield gold, box(f"{x} \\le {low}{join}{x} > {high}"), 0.0
    yield gold, box(f"{x} < {low}{join}{y} > {high}"), 0.0
    yield f"{x} < {low} \\text{{ or }} {x} > {high}", box(gold), 1.0


@kind
def residues(stream: Stream) -> Iterator[Row]:
    n, m = stream.randint(20, 200), stream.randint(2, 19)
    sign = stream.choice((r"\bmod", r"\mod"))
    yield str(n % m), box(f"{n} {sign} {m}"), 1.0
    yield str((n + 1) % m), box(f"{n} {sign} {m}"), 0.0
    yield str(n), box(f"{n} \\pmod{{{m}}}"), 0.0
    yield str(n % m), box(f"{n} \\equiv {n % m} \\pmod{{{m}}}"), 0.0


@kind
def cases_as_lists(stream: Stream) -> Iterator[Row]:
    x, y = stream.sample("abmnpqrstuvxyz", 2)
    n, m = stream.randint(2, 30), stream.randint(31, 60)
    gold = f"\\begin{{cases}} {x} = 0.5 \\\\ {y} = {n} \\end{{cases}}"
    yield gold, box(f"\\begin{{cases}} {x} = \\frac12 \\\\ {y} = {n} \\end{{cases}}"), 1.0
    yield gold, box(f"\\begin{{cases}} {y} = {n} \\\\ {x} = 1/2 \\end{{cases}}"), 1.0
    yield gold, box(f"\\begin{{cases}} {x} = \\frac12 \\\\ {y} = {m} \\end{{cases}}"), 0.0
    yield gold, box(f"{x} = \\frac{{1}}{{2}}, {y} = {n}"), 1.0
    yield gold, box(f"{x} = {n}, {y} = 0.5"), 0.0
    pieces = f"\\begin{{cases}} {x}^2 & {x} > 0 \\\\ {n} & {x} \\le 0 \\end{{cases}}"
    yield pieces, box(f"\\begin{{cases}} {n} & {x} \\leq 0 \\\\ {x}^{{2}} & {x}>0 \\end{{cases}}"), 1.0
    yield pieces, box(f"\\begin{{cases}} {x}^2 & {x} < 0 \\\\ {n} & {x} \\ge 0 \\end{{cases}}"), 0.0


@kind
def plain_text_mathematics(stream: Stream) -> Iterator[Row]:
    x = letter(stream, "abnrtxyz")
    a, b, k = stream.randint(2, 12), stream.randint(2, 12), stream.randint(2, 6)
    yield f"{a}\\pi", box(f"{a}pi"), 1.0
    yield f"{a}\\pi", box(f"{a}*pi"), 1.0
    yield f"{a}\\pi", box(f"{a + 1}pi"), 0.0
    yield f"{x}^{k}+{a}", box(f"{x}**{k}+{a}"), 1.0
    yield f"{x}^{k}+{a}", box(f"{x}*{k}+{a}"), 0.0
    yield f"{x} \\ge {a}", box(f"{x} >= {a}"), 1.0
    yield f"{x} \\ge {a}", box(f"{x} > {a}"), 0.0
    yield f"\\frac{{{a}\\pi}}{{{b}}}", box(f"{a}*pi/{b}"), 1.0
    yield f"{a}{x}", box(f"{a}*{x}"), 1.0


@kind
def evaluations(stream: Stream) -> Iterator[Row]:
    n, k = stream.randint(4, 12), stream.randint(2, 4)
    digit = stream.randint(1, 8)
    yield frac(Fraction(digit, 9)), box(f"0.\\overline{{{digit}}}"), 1.0
    yield f"0.{digit}", box(f"0.\\overline{{{digit}}}"), 0.0
    yield frac(Fraction(digit * 11 + 1, 99)), box(f"0.\\overline{{{digit * 11 + 1:02d}}}"), 1.0
    yield str(comb(n, k)), box(f"{{{n} \\choose {k}}}"), 1.0
    yield str(comb(n, k) + 1), box(f"\\binom{{{n}}}{{{k}}}"), 0.0
    yield str(n * (n + 1) // 2), box(f"\\sum_{{i=1}}^{{{n}}} i"), 1.0
    yield str(n), box(f"\\sum_{{k=1}}^{{{n}}} 1"), 1.0
    yield str(n + 1), box(f"\\sum_{{k=1}}^{{{n}}} 1"), 0.0
    yield str(isqrt(n * 7)), box(f"\\lfloor \\sqrt{{{n * 7}}} \\rfloor"), 1.0
    yield str(round(log10(10**k))), box(f"\\log_{{10}} {10**k}"), 1.0


@kind
def short_words(stream: Stream) -> Iterator[Row]:
    right, wrong = stream.sample(("yes", "no", "odd", "even", "all", "none", "true", "false"), 2)
    shape = stream.choice(("{}", "{}.", r"\text{{{}}}", r"\textbf{{{}}}", r"\mathrm{{{}}}"))
    cased = stream.choice((str.title, str.lower, str.upper))
    gold = stream.choice((right, f"\\text{{{right}}}", right.title()))
    yield gold, box(shape.format(cased(right))), 1.0
    yield gold, box(shape.format(cased(wrong))), 0.0
    yield gold, box(f"\\text{{{right} or {wrong}}}"), 0.0
    a, b = stream.sample("ABCDE", 2)
    yield a, box(a.lower()), 1.0
    yield a, box(f"({a.lower()})"), 1.0
    yield a, box(b.lower()), 0.0
