r"""Values of formulas at points.

A value is an exact fraction wherever one exists (polynomials, rational functions, roots of squares), else a float of as
many digits as are asked for. Values are real.
"""

import math
from collections.abc import Callable
from fractions import Fraction
from hashlib import sha256
from typing import Any

import mpmath

from smallwit.verify.math_formula import BASE, Formula

Value = Any
"""A `Fraction`, or an mpmath float."""

MAX_BITS = 1 << 18
MAX_TERMS = 10_000
MAX_EXPONENT_OF_E = 100_000

_INTERVALS = (
    *((1, 9), (10, 30), (20, 99), (-30, 30), (-9, 9), (-50, -2), (-99, 99), (1, 500), (-400, 400)),
    *((1, 6), (-5, 5)),
)
"""Ten times the bounds of the values that variables have at each point."""

_WHOLE_INTERVALS = ((41, 97), (-97, -41))
"""Bounds of whole values: at others x is never on the edge of its floor."""

_COUNTS = ((7, 13), (7, 19), (7, 19), (7, 19), (7, 32), (7, 67), (7, 67), (7, 67), (7, 207), (7, 207))
"""Bounds for formulas that have values for whole numbers only; from seven on (n - 2)! is defined."""

_BOUNDS = (*_INTERVALS, *_WHOLE_INTERVALS, *_COUNTS)
REAL_POINTS = range(len(_BOUNDS) - len(_COUNTS))
WHOLE_POINTS = range(len(REAL_POINTS), len(_BOUNDS))


class Undefined(ArithmeticError):
    """The formula has no real value at this point."""


class Beyond(ValueError):
    """The formula's value cannot be had here exactly enough."""


class OnlyWhole(ArithmeticError):
    """The formula has a value for whole numbers only, or one that takes long for others: n!, gcd(a, b)."""


def as_float(value: Value) -> Any:
    return mpmath.mpf(value.numerator) / value.denominator if isinstance(value, Fraction) else value


def alike(one: Value, other: Value) -> tuple[Value, Value]:
    """Return both as fractions if they are fractions, else both as floats."""
    if isinstance(one, Fraction) and isinstance(other, Fraction):
        return one, other
    return as_float(one), as_float(other)


def _random(*seed: object) -> Fraction:
    """Return a fraction between 0 and 1 that hangs on the seed alone."""
    return Fraction(int.from_bytes(sha256(repr(seed).encode()).digest()[:2]), 1 << 16)


class Point:
    """Values of the variables, and the evaluation of formulas there."""

    def __init__(self, number: int, digits: int) -> None:
        self._number = number
        self._mp = mpmath.mp
        self._shown = min(digits, 60) - 20
        self._bound: dict[str, Fraction] = {}
        self._terms = 0
        self.span = 0.0

    def value(self, formula: Formula) -> Value:
        """Return the value here. Raises `Undefined`, `Beyond`, or `ZeroDivisionError` (undefined)."""
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
        low, high = _BOUNDS[self._number]
        if seed[-1] == BASE:
            return 2 + 7 * share
        if self._number >= len(_INTERVALS):
            return Fraction(low + math.floor((high - low) * share))
        return Fraction(low, 10) + Fraction(high - low, 10) * share

    def _call(self, name: str, arguments: tuple[Formula, ...]) -> Value:
        """Return an unknown function: some value, the same for the same arguments."""
        values = [self.value(argument) for argument in arguments]
        # Written as decimals, since 1/2 may be exact in one formula and a float in the other.
        return self._sample("call", name, *(self._mp.nstr(as_float(value), self._shown) for value in values))

    def _neg(self, formula: Formula) -> Value:
        return -self.value(formula)

    def _add(self, left: Formula, right: Formula) -> Value:
        one, other = alike(self.value(left), self.value(right))
        return one + other

    def _mul(self, left: Formula, right: Formula) -> Value:
        one, other = alike(self.value(left), self.value(right))
        return one * other

    def _div(self, top: Formula, bottom: Formula) -> Value:
        one, other = alike(self.value(top), self.value(bottom))
        if other == 0:
            raise Undefined("a division by zero")
        return one / other

    def _deg(self, formula: Formula) -> Value:
        return as_float(self.value(formula)) * self._mp.pi / 180

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
        base, exponent = as_float(base), as_float(exponent)
        return self._exponential(exponent * self._mp.log(base))

    def _exponential(self, value: Value) -> Value:
        return self._mp.exp(value) if abs(value) <= MAX_EXPONENT_OF_E else self._beyond()

    def _beyond(self) -> Value:
        raise Beyond("a number too large")

    def _log(self, base: Formula, formula: Formula) -> Value:
        bottom, value = self.value(base), self.value(formula)
        if value <= 0 or bottom <= 0 or bottom == 1:
            raise Undefined("a logarithm")
        return self._mp.log(as_float(value)) / self._mp.log(as_float(bottom))

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
                one, other = alike(total, self.value(body))
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
                values = [as_float(value) for value in values]
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
        return self._analytic(name, as_float(value))

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
        if above < 0:
            raise Undefined("a binomial coefficient")
        if below < 0:
            return Fraction(0)
        return Fraction(math.comb(above, below)) if above <= 50_000 else self._beyond()


def _whole(value: Value) -> int:
    if not isinstance(value, Fraction) or value.denominator != 1:
        raise OnlyWhole
    return int(value)


def _exact_root(value: Fraction, degree: int) -> Fraction | None:
    """Return the root of a positive fraction where it is a fraction itself."""
    if degree > 64:
        return None
    roots = [_whole_root(part, degree) for part in (value.numerator, value.denominator)]
    return (
        Fraction(*roots) if roots[0] ** degree == value.numerator and roots[1] ** degree == value.denominator else None
    )


def _whole_root(value: int, degree: int) -> int:
    """Return the largest whole number whose power is not above `value`."""
    if degree == 2:
        return math.isqrt(value)
    root = 1 << -(-value.bit_length() // degree)
    while (power := (value // root ** (degree - 1) + (degree - 1) * root) // degree) < root:
        root = power
    return root
