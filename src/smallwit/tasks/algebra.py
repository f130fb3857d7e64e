"""Short symbolic problems in the form of MATH: equations, fractions, powers, remainders, ending in `\\boxed{}`.

Each kind of problem has a level, the number of steps of its solution; `steps` is the highest level drawn.
"""

from collections.abc import Callable, Sequence
from math import gcd, lcm
from typing import NamedTuple

from smallwit.tasks.procedural import Dice, DraftProblem, ProceduralMathTask

LETTERS = ("x", "y", "n", "t")
SOLVE = (
    "Solve {it} for {x}.", "Find {x} if {it}.", "What is {x} if {it}?", "Let {it}. Find {x}.", "If {it}, what is {x}?",
)  # fmt: skip
COMPUTE = ("Compute {it}.", "What is {it}?", "Find {it}.", "Find the value of {it}.", "Simplify {it}.")
AT = (
    "Compute {it} at {x} = {v}.", "What is {it} if {x} = {v}?", "Let {x} = {v}. Find {it}.",
    "If {x} = {v}, what is {it}?", "Find the value of {it} for {x} = {v}.",
)  # fmt: skip
REMAINDER = (
    "What is the remainder of {it} by {m}?", "Find the remainder of {it} by {m}.", "Compute {it} mod {m}.",
    "What is {it} mod {m}?", "Divide {it} by {m}. What is the remainder?",
)  # fmt: skip
LOWEST = ("Write {it} in lowest terms.", "Simplify {it}.", "What is {it} in lowest terms?")
THEN = ("If {it}, what is {then}?", "Let {it}. Find {then}.", "Find {then} if {it}.", "What is {then} if {it}?")
# Bases and exponents with a power that is small enough to be learnt as a fact.
POWERS = tuple((base, exponent) for base in range(2, 10) for exponent in range(2, 7) if base**exponent <= 81)


class Worked(NamedTuple):
    """A problem's text, the lines of its solution, and its answer."""

    prompt: str
    lines: tuple[str, ...]
    answer: str


def _signed(dice: Dice, high: int) -> tuple[str, str, int]:
    """Return a sign, its opposite, and a number from 1 to `high`."""
    sign, back = ("+", "-") if dice.chance(0.5) else ("-", "+")
    return sign, back, dice.between(1, high)


def _apply(a: int, sign: str, b: int) -> int:
    return a + b if sign == "+" else a - b


def _fraction(top: int, bottom: int) -> str:
    """Return in lowest terms, a whole number without its denominator."""
    common = gcd(top, bottom)
    return str(top // common) if bottom == common else f"{top // common}/{bottom // common}"


# Level 1.


def _one_sided(d: Dice, largest: int) -> Worked | None:
    x, v = d.pick(LETTERS), d.between(1, largest)
    if d.chance(0.4):
        a = d.between(2, 9)
        return Worked(d.pick(SOLVE).format(it=f"{a} {x} = {a * v}", x=x), (f"{x} = {a * v} / {a} = {v}",), str(v))
    sign, back, b = _signed(d, largest)
    c = _apply(v, sign, b)
    text = d.pick(SOLVE).format(it=f"{x} {sign} {b} = {c}", x=x)
    return Worked(text, (f"{x} = {c} {back} {b} = {v}",), str(v)) if c >= 0 else None


def _exponents(d: Dice, largest: int) -> Worked | None:
    base, a, b, x = d.between(2, 9), d.between(2, 9), d.between(2, 9), d.pick(LETTERS)
    text = d.pick(SOLVE).format(it=f"{base}^{a} * {base}^{b} = {base}^{x}", x=x)
    return Worked(text, (f"{x} = {a} + {b} = {a + b}",), str(a + b))


# Level 2.


def _two_sided(d: Dice, largest: int) -> Worked | None:
    x, a, v = d.pick(LETTERS), d.between(2, 9), d.between(1, 9)
    sign, back, b = _signed(d, largest)
    c = _apply(a * v, sign, b)
    if not 0 <= c <= 3 * largest or a * v > 3 * largest:
        return None
    text = d.pick(SOLVE).format(it=f"{a} {x} {sign} {b} = {c}", x=x)
    return Worked(text, (f"{a} {x} = {c} {back} {b} = {a * v}", f"{x} = {a * v} / {a} = {v}"), str(v))


def _fractional(d: Dice, largest: int) -> Worked | None:
    x, a, top = d.pick(LETTERS), d.between(2, 9), d.between(1, 9)
    sign, back, b = _signed(d, largest)
    c = _apply(top, sign, b)
    if c < 0 or gcd(a, top) != 1:
        return None
    text = d.pick(SOLVE).format(it=f"{a} {x} {sign} {b} = {c}", x=x)
    return Worked(text, (f"{a} {x} = {c} {back} {b} = {top}", f"{x} = {top}/{a}"), f"{top}/{a}")


def _bracket(d: Dice, largest: int) -> Worked | None:
    x, a, v = d.pick(LETTERS), d.between(2, 9), d.between(1, 9)
    sign, back, b = _signed(d, 9)
    inner = _apply(v, sign, b)
    if inner < 1 or a * inner > 3 * largest:
        return None
    text = d.pick(SOLVE).format(it=f"{a} ({x} {sign} {b}) = {a * inner}", x=x)
    lines = (f"{x} {sign} {b} = {a * inner} / {a} = {inner}", f"{x} = {inner} {back} {b} = {v}")
    return Worked(text, lines, str(v))


def _value_at(d: Dice, largest: int) -> Worked | None:
    x, a, v = d.pick(LETTERS), d.between(2, 9), d.between(2, 9)
    sign, _, b = _signed(d, largest)
    if d.chance(0.3):
        term, first, product = f"{x}^2", f"{v}^2", v * v
    else:
        term, first, product = f"{a} {x}", f"{a} * {v}", a * v
    answer = _apply(product, sign, b)
    if answer < 0 or product > 3 * largest:
        return None
    text = d.pick(AT).format(it=f"{term} {sign} {b}", x=x, v=v)
    return Worked(text, (f"{first} = {product}", f"{product} {sign} {b} = {answer}"), str(answer))


def _remainder(d: Dice, largest: int) -> Worked | None:
    a, m = d.between(10, 3 * largest), d.between(3, 9)
    whole = a - a % m
    text = d.pick(REMAINDER).format(it=a, m=m)
    return Worked(text, (f"{m} * {whole // m} = {whole}", f"{a} - {whole} = {a - whole}"), str(a - whole))


def _lowest_terms(d: Dice, largest: int) -> Worked | None:
    bottom, factor = d.between(2, 9), d.between(2, 9)
    top = d.between(1, 9)
    if gcd(top, bottom) != 1 or max(top, bottom) * factor > 3 * largest:
        return None
    text = d.pick(LOWEST).format(it=f"{top * factor}/{bottom * factor}")
    lines = (f"{top * factor} / {factor} = {top}", f"{bottom * factor} / {factor} = {bottom}")
    return Worked(text, lines, f"{top}/{bottom}")


def _power_and(d: Dice, largest: int) -> Worked | None:
    base, exponent = d.pick(POWERS)
    sign, _, b = _signed(d, largest)
    power = base**exponent
    answer = _apply(power, sign, b)
    if not 0 <= answer <= 3 * largest or power > 3 * largest:
        return None
    text = d.pick(COMPUTE).format(it=f"{base}^{exponent} {sign} {b}")
    return Worked(text, (f"{base}^{exponent} = {power}", f"{power} {sign} {b} = {answer}"), str(answer))


# Level 3.


def _both_sides(d: Dice, largest: int) -> Worked | None:
    x, a, v = d.pick(LETTERS), d.between(3, 9), d.between(1, 9)
    c, b = d.between(1, a - 1), d.between(1, largest)
    e = (a - c) * v + b
    left, right = (f"{a} {x} + {b}", f"{c} {x} + {e}")
    if e > 3 * largest or a - c < 2:
        return None
    it = f"{left} = {right}" if d.chance(0.5) else f"{right} = {left}"
    lines = (f"{a} - {c} = {a - c}", f"{a - c} {x} = {e} - {b} = {e - b}", f"{x} = {e - b} / {a - c} = {v}")
    return Worked(d.pick(SOLVE).format(it=it, x=x), lines, str(v))


def _fraction_sum(d: Dice, largest: int) -> Worked | None:
    p, q = d.between(2, 10), d.between(2, 10)
    common = lcm(p, q)
    a, b = d.between(1, p - 1), d.between(1, q - 1)
    sign = d.pick("+-")
    top, other = a * common // p, b * common // q
    total = _apply(top, sign, other)
    if p == q or common > largest or gcd(a, p) != 1 or gcd(b, q) != 1 or total <= 0 or total % common == 0:
        return None
    lines = [f"{a}/{p} = {top}/{common}"] if p != common else []
    lines += [f"{b}/{q} = {other}/{common}"] if q != common else []
    lines.append(f"{top}/{common} {sign} {other}/{common} = {total}/{common}")
    answer = _fraction(total, common)
    if answer != f"{total}/{common}":
        lines.append(f"{total}/{common} = {answer}")
    return Worked(d.pick(COMPUTE).format(it=f"{a}/{p} {sign} {b}/{q}"), tuple(lines), answer)


def _power_sum(d: Dice, largest: int) -> Worked | None:
    (a, i), (b, j) = d.two(POWERS)
    sign = d.pick("+-")
    answer = _apply(a**i, sign, b**j)
    if not 0 <= answer <= 3 * largest or max(a**i, b**j) > 3 * largest:
        return None
    lines = (f"{a}^{i} = {a**i}", f"{b}^{j} = {b**j}", f"{a**i} {sign} {b**j} = {answer}")
    return Worked(d.pick(COMPUTE).format(it=f"{a}^{i} {sign} {b}^{j}"), lines, str(answer))


def _remainder_of(d: Dice, largest: int) -> Worked | None:
    m, sign = d.between(3, 9), d.pick("+*")
    a, b = (d.between(2, largest), d.between(2, largest)) if sign == "+" else (d.between(2, 9), d.between(2, 9))
    total = a + b if sign == "+" else a * b
    whole = total - total % m
    if total < m or total > 3 * largest:
        return None
    text = d.pick(REMAINDER).format(it=f"{a} {sign} {b}", m=m)
    lines = (f"{a} {sign} {b} = {total}", f"{m} * {whole // m} = {whole}", f"{total} - {whole} = {total - whole}")
    return Worked(text, lines, str(total - whole))


def _square_and(d: Dice, largest: int) -> Worked | None:
    x, a, v, sign = d.pick(LETTERS), d.between(2, 9), d.between(2, 9), d.pick("+-")
    square, product = v * v, a * v
    answer = _apply(square, sign, product)
    if not 0 <= answer <= 3 * largest or max(square, product) > 3 * largest:
        return None
    text = d.pick(AT).format(it=f"{x}^2 {sign} {a} {x}", x=x, v=v)
    lines = (f"{v}^2 = {square}", f"{a} * {v} = {product}", f"{square} {sign} {product} = {answer}")
    return Worked(text, lines, str(answer))


def _two_letters(d: Dice, largest: int) -> Worked | None:
    (x, y), sign = d.two(LETTERS), d.pick("+-")
    a, b, u, v = d.between(2, 9), d.between(2, 9), d.between(2, 9), d.between(2, 9)
    answer = _apply(a * u, sign, b * v)
    if not 0 <= answer <= 3 * largest or max(a * u, b * v) > 3 * largest:
        return None
    text = d.pick(THEN).format(it=f"{x} = {u} and {y} = {v}", then=f"{a} {x} {sign} {b} {y}")
    lines = (f"{a} * {u} = {a * u}", f"{b} * {v} = {b * v}", f"{a * u} {sign} {b * v} = {answer}")
    return Worked(text, lines, str(answer))


# Level 4.


def _solve_then(d: Dice, largest: int) -> Worked | None:
    """Return an equation, and then the value of another expression at its solution."""
    x, a, v, c = d.pick(LETTERS), d.between(2, 9), d.between(2, 9), d.between(2, 9)
    (sign, back, b), (other, _, e) = _signed(d, largest), _signed(d, largest)
    right, answer = _apply(a * v, sign, b), _apply(c * v, other, e)
    if not 0 <= right <= 3 * largest or not 0 <= answer <= 3 * largest or max(a, c) * v > 3 * largest:
        return None
    text = d.pick(THEN).format(it=f"{a} {x} {sign} {b} = {right}", then=f"{c} {x} {other} {e}")
    solved = (f"{a} {x} = {right} {back} {b} = {a * v}", f"{x} = {a * v} / {a} = {v}")
    return Worked(text, (*solved, f"{c} * {v} = {c * v}", f"{c * v} {other} {e} = {answer}"), str(answer))


def _remainder_of_powers(d: Dice, largest: int) -> Worked | None:
    (a, i), b, m = d.pick(POWERS), d.between(2, largest), d.between(3, 9)
    power = a**i
    total = power + b
    whole = total - total % m
    if total > 3 * largest or total < m:
        return None
    text = d.pick(REMAINDER).format(it=f"{a}^{i} + {b}", m=m)
    lines = (f"{a}^{i} = {power}", f"{power} + {b} = {total}", f"{m} * {whole // m} = {whole}")
    return Worked(text, (*lines, f"{total} - {whole} = {total - whole}"), str(total - whole))


def _system(d: Dice, largest: int) -> Worked | None:
    x, y = d.two(LETTERS)
    u, v = d.between(2, largest), d.between(1, largest)
    if v >= u:
        return None
    total, gap = u + v, u - v
    if total + gap > 3 * largest:
        return None
    wanted, answer = (x, u) if d.chance(0.5) else (y, v)
    text = d.pick(SOLVE).format(it=f"{x} + {y} = {total} and {x} - {y} = {gap}", x=wanted)
    lines = [f"2 {x} = {total} + {gap} = {total + gap}", f"{x} = {total + gap} / 2 = {u}"]
    if wanted == y:
        lines.append(f"{y} = {total} - {u} = {v}")
    return Worked(text, tuple(lines), str(answer))


Kind = Callable[[Dice, int], Worked | None]
LEVELS: Sequence[Sequence[Kind]] = (
    (_one_sided, _exponents),
    (_two_sided, _fractional, _bracket, _value_at, _remainder, _lowest_terms, _power_and),
    (_both_sides, _fraction_sum, _power_sum, _remainder_of, _square_and, _two_letters),
    (_system, _solve_then, _remainder_of_powers),
)


class Algebra(ProceduralMathTask):
    """Symbolic problems. `gold` is the number or fraction as text, the declared format `\\boxed{...}`."""

    name = "algebra"

    def draft(self, dice: Dice, split: str) -> DraftProblem | None:
        """Return a problem of one of the kinds of level 2 to `steps`, all levels equally often."""
        levels = LEVELS[min(1, self.steps - 1) : self.steps]
        worked = dice.pick(dice.pick(levels))(dice, self.largest)
        if worked is None:
            return None
        return DraftProblem(worked.prompt, worked.answer, "\n".join([*worked.lines, f"\\boxed{{{worked.answer}}}"]))

    def fact(self, dice: Dice) -> str:
        """Return a power, two equal fractions or a line of arithmetic."""
        kind = dice.random()
        if kind < 0.2:
            base, exponent = dice.pick(POWERS)
            return f"{base}^{exponent} = {base**exponent}"
        if kind < 0.4:
            bottom = dice.between(2, 10)
            top, factor = dice.between(1, bottom - 1), dice.between(2, 5)
            return f"{top}/{bottom} = {top * factor}/{bottom * factor}"
        return super().fact(dice)
