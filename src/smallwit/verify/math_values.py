r"""Whether two formulas say the same, decided by their values at many points.

A formula's value is an exact fraction wherever one exists (polynomials, rational functions, roots of squares), else a
float of hundreds of digits, so that no rounded decimal and no small addend passes for the number beside it. Formulas
are compared over the reals: they have to be defined at the same points. No formula is ever simplified.
"""

import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from hashlib import sha256
from typing import Any

import mpmath  # type: ignore[import-untyped]

from smallwit.verify.math_formula import BASE, Formula, read_relation

Value = Any
"""A `Fraction`, or an mpmath float."""

QUICK_DIGITS = 60
DIGITS = 600
"""Digits of the comparison that decides; more by the size of the numbers that occur."""

MAX_BITS = 1 << 18
MAX_TERMS = 10_000
MAX_SPAN = 12_000
MAX_EXPONENT_OF_E = 100_000

_INTERVALS = ((1, 9), (10, 30), (20, 99), (-30, 30), (-9, 9), (-50, -2), (-99, 99), (1, 500), (-400, 400))
"""Ten times the bounds of the values that variables have at each point."""

_WHOLE_BOUNDS = (6, 12, 12, 12, 25, 60, 60, 60, 200, 200)
_WHOLE_POINTS = range(len(_INTERVALS), len(_INTERVALS) + len(_WHOLE_BOUNDS))
_TURNED = {"=": "=", r"\ne": r"\ne", "<": ">", ">": "<", r"\le": r"\ge", r"\ge": r"\le"}


class Undefined(ArithmeticError):
    """The formula has no real value at this point."""


class Beyond(ValueError):
    """The formula's value cannot be had here exactly enough."""


class OnlyWhole(ArithmeticError):
    """The formula has a value for whole numbers only, or one that takes long for others: n!, gcd(a, b)."""


def same_relation(gold: str, answer: str) -> bool:
    r"""Whether two formulas, or two relations, say the same. An answer that begins with `\approx` has to be a rounding.

    Raises `Unreadable`, `Beyond` or `OnlyWhole` where this cannot be told.
    """
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
    """Whether a decimal numeral agrees with a constant to less than one in its last digit."""
    (value,), signs = read_relation(exact)
    (numeral,), _ = read_relation(rounded)
    decimal = numeral[1] if numeral[0] == "neg" else numeral
    if signs or decimal[0] != "num" or _names(value):
        return False
    digits = len(rounded.partition(".")[2])
    with mpmath.workdps(QUICK_DIGITS):
        distance = _Point(0, QUICK_DIGITS).value(("add", value, ("neg", numeral)))
        return bool(abs(_float(distance)) * 10**digits < 1)


def same_value(gold: Formula, answer: Formula) -> bool:
    """Whether two formulas have the same values, and are defined at the same points.

    An answer with a letter that the gold answer does not have is refused: `x/x` is 1 almost everywhere.
    """
    if _names(answer) - _names(gold) - {BASE}:
        return False
    pairs = _pairs(gold, answer)
    return bool(pairs) and all(_equal(one, other, tolerance) for one, other, tolerance in pairs)


def _same_equation(sides: tuple[Formula, ...], sign: str, others: tuple[Formula, ...], other_sign: str) -> bool:
    """Whether the differences of the sides are multiples of each other, so that the solutions are the same."""
    one, other = (("add", pair[0], ("neg", pair[1])) for pair in (sides, others))
    if "=" in (sign, other_sign) or r"\ne" in (sign, other_sign):
        if sign != other_sign:
            return False
    elif (sign[-1] in "<>") != (other_sign[-1] in "<>"):
        return False
    pairs = _pairs(one, other)
    if not pairs:
        return False
    if not (_names(one) and _names(other)) or all(_equal(value, Fraction(0), bound) for value, _, bound in pairs):
        # An identity, or a claim on constants, has no solutions to compare.
        return sign == other_sign and _side_by_side(sides, others)
    (first, base, _), *_ = pairs
    if base == 0 or first == 0 or _tiny(first, pairs[0][2]) or _tiny(base, pairs[0][2]):
        return False
    if not all(_equal(value * base, reference * first, tolerance) for value, reference, tolerance in pairs):
        return False
    if sign in ("=", r"\ne"):
        return True
    return other_sign == (sign if (first > 0) == (base > 0) else _TURNED[sign])


def _side_by_side(sides: tuple[Formula, ...], others: tuple[Formula, ...]) -> bool:
    return len(sides) == len(others) and all(map(same_value, sides, others))


# ---- points


def _pairs(gold: Formula, answer: Formula) -> list[tuple[Value, Value, Any]]:
    """The values of both formulas at the points where they have one, and how far equal ones may lie apart.

    No pairs if they are not defined at the same points, or at too few.
    """
    names = _names(gold) | _names(answer)
    points = range(len(_INTERVALS)) if names else range(1)
    fewest = 3 if names else 1
    try:
        quick = _at(points, gold, answer, QUICK_DIGITS)
    except OnlyWhole:
        quick = []
    if quick is not None and not quick and names:
        # (-1)^n has values at whole numbers only.
        quick, fewest = _at(_WHOLE_POINTS, gold, answer, QUICK_DIGITS), 6
    if quick is None or len(quick) < fewest:
        return []
    if all(isinstance(one, Fraction) and isinstance(other, Fraction) for one, other, _, _ in quick):
        return [(one, other, None) for one, other, _, _ in quick]
    if any(not _near(one, other) for one, other, _, _ in quick) and not _may_be_multiples(quick):
        return []
    span = max(each for _, _, each, _ in quick)
    if span > MAX_SPAN:
        raise Beyond("numbers too far apart")
    chosen = [number for _, _, _, number in quick][:6]
    exact = _at(chosen, gold, answer, DIGITS + 2 * int(span))
    tolerance = mpmath.mpf(10) ** -(DIGITS - 100 + int(span))
    return [(one, other, tolerance) for one, other, _, _ in exact or []]


def _may_be_multiples(pairs: list[tuple[Value, Value, float, int]]) -> bool:
    first, base = pairs[0][:2]
    return all(_near(one * base, other * first) for one, other, _, _ in pairs)


def _near(one: Value, other: Value) -> bool:
    return bool(abs(one - other) * 10**12 <= max(abs(one), abs(other), 1))


def _equal(one: Value, other: Value, tolerance: Any) -> bool:
    if isinstance(one, Fraction) and isinstance(other, Fraction):
        return one == other
    return bool(abs(one - other) <= tolerance * max(abs(one), abs(other), 1))


def _tiny(value: Value, tolerance: Any) -> bool:
    return not isinstance(value, Fraction) and bool(abs(value) <= tolerance)


def _at(
    points: Any, gold: Formula, answer: Formula, digits: int
) -> list[tuple[Value, Value, float, int]] | None:
    """Both values, the span of what occurred, and the number of each point; `None` where only one is defined."""
    found = []
    with mpmath.workdps(digits):
        for number in points:
            point = _Point(number, digits)
            one, other = (_value_or_none(point, formula) for formula in (gold, answer))
            if (one is None) != (other is None):
                return None
            if one is not None:
                found.append((*_alike(one, other), point.span, number))
    return found


def _value_or_none(point: "_Point", formula: Formula) -> Value | None:
    try:
        return point.value(formula)
    except (Undefined, ZeroDivisionError):
        return None


def _names(formula: Formula) -> frozenset[str]:
    """What a formula's value hangs on: its variables and unknown functions."""
    return frozenset(_walk_names(formula, frozenset()))


def _walk_names(formula: Formula, bound: frozenset[str]) -> Iterator[str]:
    if formula[0] in ("var", "call"):
        if formula[1] not in bound:
            yield formula[1]
    if formula[0] == "sum":
        bound = bound | {formula[2]}
    for part in formula[1:]:
        if isinstance(part, tuple):
            for each in (part,) if part and isinstance(part[0], str) else part:
                yield from _walk_names(each, bound)


# ---- values


def _float(value: Value) -> Any:
    return mpmath.mpf(value.numerator) / value.denominator if isinstance(value, Fraction) else value


def _alike(one: Value, other: Value) -> tuple[Value, Value]:
    """Both as fractions if they are, else both as floats."""
    if isinstance(one, Fraction) and isinstance(other, Fraction):
        return one, other
    return _float(one), _float(other)


def _random(*seed: object) -> Fraction:
    """A fraction between 0 and 1 that hangs on the seed alone."""
    return Fraction(int.from_bytes(sha256(repr(seed).encode()).digest()[:2]), 1 << 16)


class _Point:
    """Values of the variables, and the evaluation of formulas there."""

    def __init__(self, number: int, digits: int) -> None:
        self._number = number
        self._mp = mpmath.mp
        self._shown = min(digits, QUICK_DIGITS) - 20
        self._bound: dict[str, Fraction] = {}
        self._terms = 0
        self.span = 0.0

    def value(self, formula: Formula) -> Value:
        """The value here. Raises `Undefined`, `Beyond`, or `ZeroDivisionError` (undefined)."""
        value = getattr(self, f"_{formula[0]}")(*formula[1:])
        if value:
            if isinstance(value, Fraction):
                bits = value.numerator.bit_length() - value.denominator.bit_length()
                if max(value.numerator.bit_length(), value.denominator.bit_length()) > MAX_BITS:
                    raise Beyond("a number too long")
            else:
                bits = self._mp.mag(value)
            self.span = max(self.span, abs(bits) * 0.302)
        return value

    def _num(self, value: Fraction) -> Value:
        return value

    def _const(self, name: str) -> Value:
        return +(self._mp.pi if name == "pi" else self._mp.e)

    def _var(self, name: str) -> Value:
        if name in self._bound:
            return self._bound[name]
        return self._sample("var", name)

    def _sample(self, *seed: object) -> Fraction:
        share = _random(self._number, *seed)
        if self._number in _WHOLE_POINTS:
            return Fraction(1 + math.floor(share * _WHOLE_BOUNDS[self._number - len(_INTERVALS)]))
        low, high = _INTERVALS[self._number]
        if seed[-1] == BASE:
            low, high = 20, 90
        return Fraction(low, 10) + Fraction(high - low, 10) * share

    def _call(self, name: str, arguments: tuple[Formula, ...]) -> Value:
        """An unknown function: some value, the same for the same arguments."""
        values = [self.value(argument) for argument in arguments]
        # Written as decimals, since 1/2 may be exact in one formula and a float in the other.
        return self._sample("call", name, *(self._mp.nstr(_float(value), self._shown) for value in values))

    def _neg(self, formula: Formula) -> Value:
        return -self.value(formula)

    def _add(self, left: Formula, right: Formula) -> Value:
        one, other = _alike(self.value(left), self.value(right))
        return one + other

    def _mul(self, left: Formula, right: Formula) -> Value:
        one, other = _alike(self.value(left), self.value(right))
        return one * other

    def _div(self, top: Formula, bottom: Formula) -> Value:
        one, other = _alike(self.value(top), self.value(bottom))
        if other == 0:
            raise Undefined("a division by zero")
        return one / other

    def _deg(self, formula: Formula) -> Value:
        return _float(self.value(formula)) * self._mp.pi / 180

    def _pow(self, base: Formula, exponent: Formula) -> Value:
        return self._power(self.value(base), self.value(exponent))

    def _root(self, degree: Formula, formula: Formula) -> Value:
        value = self.value(degree)
        if not (isinstance(value, Fraction) and value.denominator == 1 and value > 1):
            raise Beyond("a root of another degree")
        return self._power(self.value(formula), 1 / value)

    def _power(self, base: Value, exponent: Value) -> Value:
        if base == 0:
            if exponent <= 0:
                raise Undefined("a power of zero")
            return Fraction(0)
        if isinstance(exponent, Fraction) and exponent.denominator == 1:
            if not isinstance(base, Fraction):
                return base**exponent.numerator if abs(exponent) <= MAX_EXPONENT_OF_E else self._beyond()
            bits = max(base.numerator.bit_length(), base.denominator.bit_length())
            if base not in (1, -1) and bits * abs(exponent) > MAX_BITS:
                raise Beyond("a power too large")
            return base ** int(exponent) if base not in (1, -1) else base ** int(exponent % 2)
        if base < 0:
            # A root of odd degree is real.
            if not isinstance(exponent, Fraction) or exponent.denominator % 2 == 0:
                raise Undefined("a root of a negative number")
            power = self._power(-base, exponent)
            return -power if exponent.numerator % 2 else power
        if isinstance(base, Fraction) and isinstance(exponent, Fraction):
            root = _exact_root(base, exponent.denominator)
            if root is not None:
                return self._power(root, Fraction(exponent.numerator))
        base, exponent = _float(base), _float(exponent)
        return self._exponential(exponent * self._mp.log(base))

    def _exponential(self, value: Value) -> Value:
        return self._mp.exp(value) if abs(value) <= MAX_EXPONENT_OF_E else self._beyond()

    def _beyond(self) -> Value:
        raise Beyond("a number too large")

    def _log(self, base: Formula, formula: Formula) -> Value:
        bottom, value = self.value(base), self.value(formula)
        if value <= 0 or bottom <= 0 or bottom == 1:
            raise Undefined("a logarithm")
        return self._mp.log(_float(value)) / self._mp.log(_float(bottom))

    def _sum(self, kind: str, name: str, low: Formula, high: Formula, body: Formula) -> Value:
        first, last = (_whole(self.value(bound)) for bound in (low, high))
        outer = self._bound
        total: Value = Fraction(kind == "prod")
        try:
            for term in range(first, last + 1):
                self._terms += 1
                if self._terms > MAX_TERMS:
                    raise Beyond("a sum too long")
                self._bound = {**outer, name: Fraction(term)}
                one, other = _alike(total, self.value(body))
                total = one + other if kind == "sum" else one * other
        finally:
            self._bound = outer
        return total

    def _fn(self, name: str, arguments: tuple[Formula, ...]) -> Value:
        values = [self.value(argument) for argument in arguments]
        if name in ("gcd", "lcm"):
            whole = [_whole(value) for value in values]
            return Fraction(math.gcd(*whole) if name == "gcd" else math.lcm(*whole))
        if name == "mod":
            value, modulus = (_whole(value) for value in values)
            if not 0 < modulus <= value:
                raise Beyond("a residue that may be meant as a class: 18 mod 20")
            return Fraction(value % modulus)
        if name in ("max", "min"):
            if not all(isinstance(value, Fraction) for value in values):
                values = [_float(value) for value in values]
            return (max if name == "max" else min)(values)
        if name == "binom":
            return self._binomial(*values)
        (value,) = values
        if name == "factorial":
            return self._factorial(value)
        if name == "abs":
            return abs(value)
        if name in ("floor", "ceil"):
            return self._rounded(name, value)
        return self._analytic(name, _float(value))

    def _analytic(self, name: str, value: Any) -> Value:
        if name == "exp":
            return self._exponential(value)
        if name == "ln":
            if value <= 0:
                raise Undefined("a logarithm")
            return self._mp.log(value)
        if name in ("arcsin", "arccos") and abs(value) > 1:
            raise Undefined("an angle")
        if abs(value) > MAX_EXPONENT_OF_E:
            raise Beyond("an argument too large")
        function: Callable[[Any], Any] = getattr(self._mp, name.replace("arc", "a"))
        return function(value)

    def _rounded(self, name: str, value: Value) -> Value:
        if not isinstance(value, Fraction):
            nearest = self._mp.nint(value)
            if abs(value - nearest) < self._mp.mpf(10) ** -20:
                raise Beyond("on the edge of a whole number")
        return Fraction(int(math.floor(value) if name == "floor" else math.ceil(value)))

    def _factorial(self, value: Value) -> Value:
        number = _whole(value)
        if number < 0:
            raise Undefined("a factorial")
        return Fraction(math.factorial(number)) if number <= 5000 else self._beyond()

    def _binomial(self, n: Value, k: Value) -> Value:
        below = _whole(k)
        if isinstance(n, Fraction) and 0 <= below <= 50:
            product = Fraction(1)
            for factor in range(below):
                product *= n - factor
            return product / math.factorial(below)
        above = _whole(n)
        if above < 0 or below < 0:
            raise Undefined("a binomial coefficient")
        return Fraction(math.comb(above, below)) if above <= 50_000 else self._beyond()


def _whole(value: Value) -> int:
    if not isinstance(value, Fraction) or value.denominator != 1:
        raise OnlyWhole
    return int(value)


def _exact_root(value: Fraction, degree: int) -> Fraction | None:
    """The root of a positive fraction where it is a fraction itself."""
    if degree > 64:
        return None
    roots = [_whole_root(part, degree) for part in (value.numerator, value.denominator)]
    return Fraction(*roots) if roots[0] ** degree == value.numerator and roots[1] ** degree == value.denominator else None


def _whole_root(value: int, degree: int) -> int:
    """The largest whole number whose power is not above `value`."""
    if degree == 2:
        return math.isqrt(value)
    root = 1 << -(-value.bit_length() // degree)
    while (power := (value // root ** (degree - 1) + (degree - 1) * root) // degree) < root:
        root = power
    return root
