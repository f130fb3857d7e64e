"""Kinds of numbers, units and formulas that graders refuse wrongly, as functions of a random stream."""

from collections.abc import Iterator
from fractions import Fraction
from math import comb, isqrt

from math_variants_claims import Row, Stream, box, frac, letter

TEXT_COMMANDS = ("text", "textnormal", "textsf", "textup", "mbox", "textrm", "mathrm", "texttt")
UNITS = ("km", "kg", "cm", "hours", "feet", "pounds")


# ---- numbers and units


def thousands(stream: Stream) -> Iterator[Row]:
    n = stream.randint(10**6, 10**10)
    parts = f"{n:,}".split(",")
    spelled = stream.choice((r",\! ", r",\!", r", \! ", r"{,}", r"\,", ",", r"\!,")).join(parts)
    yield str(n), box(spelled), 1.0
    yield spelled, box(n), 1.0
    yield str(n + 1), box(spelled), 0.0
    yield str(n), box(", ".join(parts)), 0.0


def text_commands(stream: Stream) -> Iterator[Row]:
    n, command = (
        stream.randint(2, 300),
        stream.choice(TEXT_COMMANDS),
    )
    unit, other = stream.sample(UNITS, 2)
    yield str(n), box(f"{n}\\{command}{{ {unit}}}"), 1.0
    yield f"{n} \\text{{ {other}}}", box(f"{n}\\{command}{{ {unit}}}"), 0.0
    yield f"{n} {unit}", box(f"{n}\\,\\{command}{{{unit}}}"), 1.0
    yield str(n), box(f"{n}\\operatorname{{{unit}}}"), 1.0


def letters_as_units(stream: Stream) -> Iterator[Row]:
    n = stream.randint(2, 300)
    unit, other = stream.sample(["N", "J", "A", "V", "W", "K", "C", "F", "Hz", "T", "Pa", "mol", "m", "s", "g"], 2)
    yield str(n), box(f"{n} \\text{{ {unit}}}"), 1.0
    yield f"{n} \\text{{ {other}}}", box(f"{n} \\text{{ {unit}}}"), 0.0
    yield str(n), box(f"{n}{unit}"), 0.0 if len(unit) == 1 else 1.0
    yield str(n), box(f"{n}\\mathrm{{i}}"), 0.0


def powers_of_ten(stream: Stream) -> Iterator[Row]:
    k, m = stream.sample(range(1, 9), 2)
    yield f"{10**-k:.{k}f}", box(f"10^-{k}"), 1.0
    yield f"{10**-k:.{k}f}", box(f"10^{{-{k}}}"), 1.0
    yield f"{10**-k:.{k}f}", box(f"10^-{m}"), 0.0
    yield str(10**k), box(f"1e{k}"), 1.0
    yield str(k), box(f"1e{k}"), 0.0
    yield f"{10**k}", box(f"10^{{{k}}}0"), 0.0
    yield f"{3 * 10**-k:.{k}f}", box(f"3 \\times 10^-{k}"), 1.0


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


def products_as_names(stream: Stream) -> Iterator[Row]:
    x, y, z = stream.sample("abcmnpqrstuvxyz", 3)
    n = stream.randint(2, 90)
    yield f"{x}{y} = {n}", box(f"{y}{x} = {n}"), 1.0
    yield f"{x}{y} = {n}", box(f"{y}{x} = {n + 1}"), 0.0
    yield f"{x}{y} = {n}", box(f"{x}{z} = {n}"), 0.0
    yield f"{x}{y} = {n}", box(f"{x} \\cdot {y} = {n}"), 1.0
    yield f"{x}{y}{z} = {n}", box(f"{z}{x}{y} = {n}"), 1.0


def named_tuples(stream: Stream) -> Iterator[Row]:
    x, y = stream.sample("abcmnpqrstuvxyz", 2)
    a, b = stream.sample(range(-20, 40), 2)
    yield f"{x} = {a}, {y} = {b}", box(f"({x}, {y}) = ({a}, {b})"), 1.0
    yield f"{x} = {a}, {y} = {b}", box(f"({y}, {x}) = ({b}, {a})"), 1.0
    yield f"{x} = {a}, {y} = {b}", box(f"({x}, {y}) = ({b}, {a})"), 0.0
    yield f"({x},{y}) = ({a},{b})", box(f"{x} = {a}, {y} = {b}"), 1.0
    yield f"({x},{y}) = ({a},{b})", box(f"{x} = {b}, {y} = {a}"), 0.0
    yield f"({a},{b})", box(f"({x}, {y}) = ({a}, {b})"), 1.0


def names(stream: Stream) -> Iterator[Row]:
    p, q, r, s = stream.sample("ABCDEFGHKLMN", 4)
    a, b = stream.sample("abcmnpqrst", 2)
    n = stream.randint(2, 60)
    name = stream.choice(
        (f"|{p}{q}|", f"\\frac{{{a}}}{{{b}}}", f"P({p} \\cap {q})", f"P({p}|{q})", f"\\overline{{{p}{q}}}", f"{p}{q}",
         f"\\frac{{{p}{q}}}{{{r}{s}}}", f"E[{p}]", f"\\angle {p}{q}{r}", f"{a}_{{1}}", f"f({n})", r"\text{Area}")
    )  # fmt: skip
    yield str(n), box(f"{name} = {n}"), 1.0
    yield str(n + 1), box(f"{name} = {n}"), 0.0
    yield str(n), box(f"|{a}| = {n}"), 0.0
    yield str(n), box(f"\\frac{{{a}}}{{2}} = {n}"), 0.0
    yield str(n), box(f"2{a} = {n}"), 0.0


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


def residues(stream: Stream) -> Iterator[Row]:
    n, m = stream.randint(20, 200), stream.randint(2, 19)
    sign = stream.choice((r"\bmod", r"\mod"))
    yield str(n % m), box(f"{n} {sign} {m}"), 1.0
    yield str((n + 1) % m), box(f"{n} {sign} {m}"), 0.0
    yield str(n), box(f"{n} \\pmod{{{m}}}"), 0.0
    yield str(n % m), box(f"{n} \\equiv {n % m} \\pmod{{{m}}}"), 0.0


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
    yield str(k), box(f"\\log_{{10}} {10**k}"), 1.0


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


KINDS = (
    thousands,
    text_commands,
    letters_as_units,
    powers_of_ten,
    roots,
    logarithms,
    lines,
    products_as_names,
    named_tuples,
    names,
    unions,
    residues,
    cases_as_lists,
    plain_text_mathematics,
    evaluations,
    short_words,
)
