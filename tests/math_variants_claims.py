"""Kinds of answers that graders accept or look for wrongly, as functions of a random stream."""

import random
from collections.abc import Iterator
from fractions import Fraction
from math import gcd, isqrt

Row = tuple[str, str, float]
"""Gold answer, response, truth."""

Stream = random.Random

CHANGING = (
    *(
        "elevenths",
        "quarters",
        "twentieths",
        "billionths",
        "reciprocal",
        "inverse",
        "halves",
        "dozen",
        "pairs",
        "squared",
    ),
    *(
        "cubed",
        "score",
        "tenths",
        "hundredths",
        "factorial",
        "radicals",
        "modulo",
        "prime",
        "fold",
        "doubled",
        "hundred",
    ),
    *("twelfths", "gross", "mod", "percentiles"),
)
COUNTED = (
    *(
        "apples",
        "eggs",
        "dollars",
        "people",
        "students",
        "marbles",
        "ways",
        "red marbles",
        "more books",
        "cups of flour",
    ),
)


def box(answer: object) -> str:
    return f"\\boxed{{{answer}}}"


def letter(stream: Stream, letters: str = "abcmnpqrstuvxyz") -> str:
    return stream.choice(letters)


def frac(value: Fraction) -> str:
    sign = "-" if value < 0 else ""
    top, bottom = abs(value.numerator), value.denominator
    return f"{sign}{top}" if bottom == 1 else f"{sign}\\frac{{{top}}}{{{bottom}}}"


# ---- false accepts of others


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


def rounded_names(stream: Stream) -> Iterator[Row]:
    name = stream.choice(("x", "y", "t", "r", r"\theta", r"\text{Area}", "A", "x_1", "V"))
    value, other = stream.sample(range(10, 999), 2)
    gold = f"{name} \\approx {value / 100}"
    yield gold, box(f"{name} \\approx {other / 100}"), 0.0
    yield gold, box(f"{name} \\approx {value / 100}"), 1.0
    yield gold, box(f"{name} = {value / 100}"), 1.0
    yield gold, box(value / 100), 1.0
    yield gold, box(other / 100), 0.0


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


def unsolvable_equations(stream: Stream) -> Iterator[Row]:
    x, y = stream.sample("abmnpqrstuvxyz", 2)
    a, b, k = stream.randint(1, 20), stream.randint(21, 50), stream.randint(2, 9)
    yield f"{x}^2 + {a} = 0", box(f"{x}^2 + {b} = 0"), 0.0
    yield f"{x}^2 + {a} = 0", box(f"{k}{x}^2 + {k * a} = 0"), 1.0
    yield f"{x}^2 + {a} = 0", box(f"{x}^2 = -{a}"), 1.0
    yield f"{x}^2 + {y}^2 + {a} = 0", box(f"{x}^2 + {y}^2 + {b} = 0"), 0.0
    yield f"{x}^2 + {y}^2 + {a} = 0", box(f"{a} + {y}^2 + {x}^2 = 0"), 1.0
    yield f"{x}^4 = -{a}", box(f"{x}^4 = -{b}"), 0.0


def claims_on_numbers(stream: Stream) -> Iterator[Row]:
    a, b, c, d = stream.sample(range(2, 60), 4)
    yield f"{a} + {b} = {a + b}", box(f"{c} + {d} = {c + d}"), float(a + b == c + d)
    yield f"{a} + {b} = {a + b}", box(f"{a}+{b}={a + b}"), 1.0
    yield f"{a} + {b} = {a + b}", box(a + b), 1.0
    yield f"{a} + {b} = {a + b}", box(a + b + 1), 0.0
    yield str(a + b), box(f"{a} + {b} = {a + b}"), 1.0
    yield str(a + b + 1), box(f"{a} + {b} = {a + b + 1}"), 0.0


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


def identities(stream: Stream) -> Iterator[Row]:
    x = letter(stream)
    a, b = stream.sample(range(1, 15), 2)
    gold = f"({x}+{a})^2 = {x}^2 + {2 * a}{x} + {a * a}"
    yield gold, box(f"({x}+{b})^2 = {x}^2 + {2 * b}{x} + {b * b}"), 0.0
    yield gold, box(f"({x} + {a})^2 = {a * a} + {2 * a}{x} + {x}^2"), 1.0
    yield gold, box("0 = 0"), 0.0


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


def divisors_of_letters(stream: Stream) -> Iterator[Row]:
    a, b, c = stream.sample("abcdmnpq", 3)
    name = stream.choice((r"\gcd", r"\operatorname{lcm}", r"\max", r"\min"))
    yield f"{name}({a},{b})", box(f"{name}({a},{c})"), 0.0
    yield f"{name}({a},{b})", box(f"{name}({a}, {b})"), 1.0
    yield f"{name}({a},{b})", box("1"), 0.0
    m, n = stream.randint(2, 90), stream.randint(2, 90)
    yield str(gcd(m, n)), box(f"\\gcd({m},{n})"), 1.0
    yield str(gcd(m, n) + 1), box(f"\\gcd({m}, {n})"), 0.0


def vectors_and_points(stream: Stream) -> Iterator[Row]:
    a, b = stream.sample("abuvw", 2)
    p, q, r, s = stream.sample("ABCDEFGHKLMN", 4)
    yield f"\\vec{{{a}}}\\cdot\\vec{{{b}}}", box(f"\\vec{{{a}}}\\times\\vec{{{b}}}"), 0.0
    yield f"\\vec{{{a}}}\\times\\vec{{{b}}}", box(f"\\vec{{{b}}}\\times\\vec{{{a}}}"), 0.0
    yield f"\\mathbf{{{a}}}\\cdot\\mathbf{{{b}}}", box(f"\\mathbf{{{a}}}\\times\\mathbf{{{b}}}"), 0.0
    yield f"\\vec{{{a}}}\\cdot\\vec{{{b}}}", box(f"\\vec{{{a}}} \\cdot \\vec{{{b}}}"), 1.0
    mark = stream.choice((r"\angle", r"\triangle"))
    yield f"{mark} {p}{q}{r}", box(f"{mark} {p}{r}{q}"), 0.0
    yield f"{mark} {p}{q}{r}", box(f"{mark} {q}{p}{r}"), 0.0
    yield f"{mark} {p}{q}{r}", box(f"{mark}  {p}{q}{r}"), 1.0
    yield f"{p}{q} \\cdot {r}{s}", box(f"{p}{r} \\cdot {q}{s}"), 0.0
    yield f"\\overline{{{p}{q}}}", box(f"\\overline{{{p}{r}}}"), 0.0
    yield f"{p}^T", box(p), 0.0
    yield f"({p}{q})^T", box(f"{p}^T {q}^T"), 0.0


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


def sets_in_sets(stream: Stream) -> Iterator[Row]:
    a, b, c = stream.sample(range(1, 50), 3)
    yield f"\\{{\\{{{a},{b}\\}},{c}\\}}", box(f"\\{{{a},{b},{c}\\}}"), 0.0
    yield f"\\{{{a},{b},{c}\\}}", box(f"\\{{{a},\\{{{b},{c}\\}}\\}}"), 0.0
    yield f"\\{{\\{{{a},{b}\\}},{c}\\}}", box(f"\\{{{c}, \\{{{b}, {a}\\}}\\}}"), 1.0
    yield f"\\{{{a},{b},{c}\\}}", box(f"\\{{{c}, {a}, {b}\\}}"), 1.0
    for wrong in (f"\\{{{a}\\}}", f"[{a}]", f"{a}:1", f"{c}\\boxed{{{a}}}", f"\\{{{a}, {b}\\}}"):
        yield str(a), box(wrong), 0.0


def words_behind_numbers(stream: Stream) -> Iterator[Row]:
    n = stream.randint(2, 99)
    word = stream.choice(CHANGING)
    yield str(n), box(f"{n} {word}"), 0.0
    yield str(n), box(f"{n} \\text{{ {word}}}"), 0.0
    yield str(n), f"The answer is {n} {word}.", 0.0
    noun = stream.choice(COUNTED)
    yield str(n), box(f"{n} {noun}"), 1.0
    yield str(n), box(f"{n}\\text{{ {noun}}}"), 1.0
    yield str(n), f"The answer is {n} {noun}.", 1.0


# ---- sentences


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


KINDS = (
    products,
    rounded_names,
    rounded_values,
    unsolvable_equations,
    claims_on_numbers,
    chains,
    identities,
    primes_and_derivatives,
    divisors_of_letters,
    vectors_and_points,
    degrees,
    second_units,
    members,
    sets_in_sets,
    words_behind_numbers,
    sentences,
    numbers_inside_formulas,
)
