r"""Whether two formulas say the same, decided by their values at many points.

Floats have hundreds of digits here, so that no rounded decimal and no small addend passes for the number beside it.
Formulas are compared over the reals: they have to be defined at the same points. No formula is ever simplified.
"""

from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any

import mpmath

from smallwit.verify.math_formula import BASE, Formula, read_relation
from smallwit.verify.math_values import (
    REAL_POINTS,
    WHOLE_POINTS,
    Beyond,
    OnlyWhole,
    Point,
    Undefined,
    Value,
    alike,
    as_float,
)

QUICK_DIGITS = 60
DIGITS = 600
"""Digits of the comparison that decides; more by the size of the numbers that occur."""

MAX_SPAN = 3_000

_TURNED = {"=": "=", r"\ne": r"\ne", "<": ">", ">": "<", r"\le": r"\ge", r"\ge": r"\le"}


def same_relation(gold: str, answer: str) -> bool:
    r"""Return whether two formulas, or two relations, say the same.

    An answer that begins with `\approx` has to be a rounding.

    Raises `Unreadable`, `Beyond` or `OnlyWhole` where this cannot be told.
    """
    # Products of values are compared too: none of them may be rounded.
    with mpmath.workdps(DIGITS + 2 * MAX_SPAN):
        return _same_relation(gold, answer)


def _same_relation(gold: str, answer: str) -> bool:
    if answer.startswith(r"\approx"):
        return is_rounding(gold, answer.removeprefix(r"\approx").strip())
    (sides, signs), (others, other_signs) = read_relation(gold), read_relation(answer)
    if bool(signs) != bool(other_signs):
        return False
    if not signs:
        return same_value(sides[0], others[0])
    if len(signs) == len(other_signs) == 1:
        return _same_equation(sides, signs[0], others, other_signs[0])
    turned = tuple(_TURNED[sign] for sign in reversed(other_signs))
    return (signs == other_signs and _side_by_side(sides, others)) or (
        signs == turned and _side_by_side(sides, others[::-1])
    )


def is_rounding(exact: str, rounded: str) -> bool:
    """Return whether a decimal numeral agrees with a constant to less than one in its last digit."""
    (value,), signs = read_relation(exact)
    (numeral,), _ = read_relation(rounded)
    decimal = numeral[1] if numeral[0] == "neg" else numeral
    if signs or decimal[0] != "num" or _names(value):
        return False
    digits = len(rounded.partition(".")[2])
    with mpmath.workdps(QUICK_DIGITS):
        distance = Point(0, QUICK_DIGITS).value(("add", value, ("neg", numeral)))
        return bool(abs(as_float(distance)) * 10**digits < 1)


def same_value(gold: Formula, answer: Formula) -> bool:
    """Return whether two formulas have the same values, and are defined at the same points.

    An answer with a letter that the gold answer does not have is refused: `x/x` is 1 almost everywhere.
    """
    if _names(answer) - _names(gold) - {BASE}:
        return False
    pairs = _pairs(gold, answer)
    return bool(pairs) and all(_equal(one, other, tolerance) for one, other, tolerance in pairs)


def _same_equation(sides: tuple[Formula, ...], sign: str, others: tuple[Formula, ...], other_sign: str) -> bool:
    """Return whether the differences of the sides are multiples of each other, so that the solutions are the same."""
    one, other = (("add", pair[0], ("neg", pair[1])) for pair in (sides, others))
    if "=" in (sign, other_sign) or r"\ne" in (sign, other_sign):
        if sign != other_sign:
            return False
    elif (sign[-1] in "<>") != (other_sign[-1] in "<>"):
        return False
    pairs = _pairs(one, other)
    if not pairs:
        return False
    (first, base, _), *_ = pairs
    if all(_equal(value, first, bound) for value, _, bound in pairs):
        # An identity (x = x), a claim on constants (2 + 3 = 5) and a contradiction (x = x + 1) have no solutions.
        return sign == other_sign and _side_by_side(sides, others)
    if _is_zero(first, pairs[0][2]) or _is_zero(base, pairs[0][2]):
        return False
    if not all(_equal(value * base, reference * first, tolerance) for value, reference, tolerance in pairs):
        return False
    if sign in ("=", r"\ne"):
        return True
    return other_sign == (sign if (first > 0) == (base > 0) else _TURNED[sign])


def _side_by_side(sides: tuple[Formula, ...], others: tuple[Formula, ...]) -> bool:
    return len(sides) == len(others) and all(map(same_value, sides, others))


def _pairs(gold: Formula, answer: Formula) -> list[tuple[Value, Value, Any]]:
    """Return the values of both formulas at the points where they have one, and how far equal ones may lie apart.

    No pairs if they are not defined at the same points, or at too few.
    """
    names = _names(gold) | _names(answer)
    points: Iterable[int] = REAL_POINTS if names else range(1)
    fewest = 3 if names else 1
    try:
        quick = _at(points, gold, answer, QUICK_DIGITS)
    except OnlyWhole:
        quick = []
    if quick is not None and len(quick) < fewest and names:
        # (-1)^n has values at whole numbers only.
        counts, fewest = _at(WHOLE_POINTS, gold, answer, QUICK_DIGITS), 6
        quick = None if counts is None else quick + counts
    if quick is None or len(quick) < fewest:
        return []
    if all(isinstance(one, Fraction) and isinstance(other, Fraction) for one, other, _, _ in quick):
        return [(one, other, None) for one, other, _, _ in quick]
    quick = [(as_float(one), as_float(other), span, number) for one, other, span, number in quick]
    if any(not _near(one, other) for one, other, _, _ in quick) and not _may_be_multiples(quick):
        return []
    # The points with the smallest numbers tell the same and take the fewest digits.
    chosen = sorted(quick, key=lambda pair: pair[2])[:6]
    span = chosen[-1][2]
    if span > MAX_SPAN:
        raise Beyond("numbers too far apart")
    exact = _at([number for _, _, _, number in chosen], gold, answer, DIGITS + 2 * int(span))
    tolerance = mpmath.mpf(10) ** -(DIGITS - 100 + int(span))
    return [(as_float(one), as_float(other), tolerance) for one, other, _, _ in exact or []]


def _may_be_multiples(pairs: list[tuple[Value, Value, float, int]]) -> bool:
    first, base = pairs[0][:2]
    return all(_near(one * base, other * first) for one, other, _, _ in pairs)


def _near(one: Value, other: Value) -> bool:
    return bool(abs(one - other) * 10**12 <= max(abs(one), abs(other), 1))


def _equal(one: Value, other: Value, tolerance: Any) -> bool:
    if isinstance(one, Fraction) and isinstance(other, Fraction):
        return one == other
    return bool(abs(one - other) <= tolerance * max(abs(one), abs(other), 1))


def _is_zero(value: Value, tolerance: Any) -> bool:
    return bool(value == 0 if isinstance(value, Fraction) else abs(value) <= tolerance)


def _at(
    points: Iterable[int], gold: Formula, answer: Formula, digits: int
) -> list[tuple[Value, Value, float, int]] | None:
    """Return both values, the span of the numbers in between, and each point's number; `None` if one is undefined."""
    found = []
    alone = not (_names(gold) or _names(answer))
    with mpmath.workdps(digits):
        for number in points:
            point = Point(number, digits)
            one, other = (_value_or_none(point, formula, alone) for formula in (gold, answer))
            if (one is None) != (other is None):
                return None
            if one is not None:
                found.append((*alike(one, other), point.span, number))
    return found


def _value_or_none(point: Point, formula: Formula, alone: bool) -> Value | None:
    """Return the value, or `None`; at one point of many a value that is beyond reach counts as none."""
    try:
        return point.value(formula)
    except (Undefined, ZeroDivisionError):
        return None
    except Beyond:
        if alone:
            raise
        return None


def _names(formula: Formula) -> frozenset[str]:
    """Return the variables and unknown functions that a formula's value depends on."""
    return frozenset(_walk_names(formula, frozenset()))


def _walk_names(formula: Formula, bound: frozenset[str]) -> Iterator[str]:
    if formula[0] in ("var", "call") and formula[1] not in bound:
        yield formula[1]
    if formula[0] == "sum":
        bound = bound | {formula[2]}
    for part in formula[1:]:
        if isinstance(part, tuple):
            for each in (part,) if part and isinstance(part[0], str) else part:
                yield from _walk_names(each, bound)
