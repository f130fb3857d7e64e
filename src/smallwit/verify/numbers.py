r"""Exact reading of numbers as people and language models write them, without algebra.

    >>> read_number(r"\$1,234.50 \text{ dollars}")
    Quantity(value=Fraction(2469, 2), unit='$')

Read are integers, decimals, fractions (`a/b`, `\frac{a}{b}`, `\dfrac`, `\tfrac`), mixed numbers, thousands separators,
`a \times 10^{b}`, a currency sign, and trailing units or known words. A per-cent sign is a unit: 50 equals 50 %. Number
words ("twelve") are not numbers; "2 thousand" and "2 dozen" are. Values are `fractions.Fraction`: nothing is rounded.
"""

import re
from dataclasses import dataclass
from fractions import Fraction

from smallwit.verify.math_units import NOT_A_UNIT, TEXT_COMMANDS, read_units

MAX_LENGTH = 300
"""Longest text (characters) that is read as a number; it also bounds the digits."""

MAX_EXPONENT = 400
"""Largest power of ten, in absolute value, that is read."""


@dataclass(frozen=True, slots=True)
class Quantity:
    """An exact value and its unit (`None` when there is none, or none that is known)."""

    value: Fraction
    unit: str | None = None

    def same(self, other: "Quantity") -> bool:
        """Return whether values are equal and units do not contradict each other: 3 cm equals 3, but not 3 m."""
        return self.value == other.value and (self.unit is None or other.unit is None or self.unit == other.unit)


_DECIMAL = r"(?:(?:[1-9][0-9]{0,2}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]*)?|\.[0-9]+)"
_SIGNED = rf"[+-]?\s*{_DECIMAL}"
_BRACED = rf"(?:\{{\s*{_SIGNED}\s*\}}|[0-9])"
_NUMBER = re.compile(
    rf"""
    (?P<sign>[+-]?)\s*(?P<currency>[$£€¥₹]?)\s*(?P<sign2>[+-]?)\s*
    (?:
        (?:(?P<whole>[0-9]+)\s*)?\\frac\s*(?P<top>{_BRACED})\s*(?P<bottom>{_BRACED})
      | (?:(?P<whole2>[0-9]+)\s+)?(?P<top2>{_DECIMAL})\s*/\s*(?P<bottom2>{_DECIMAL})
      | (?P<mantissa>{_DECIMAL})\s*(?:\\times|\\cdot|[×*·])\s*10\s*\^\s*(?P<power>\{{\s*[+-]?[0-9]+\s*\}}|-?[0-9]+)
      | (?P<decimal>{_DECIMAL})(?:[eE](?P<exponent>[+-]?[0-9]+))?
    )
    """,
    re.VERBOSE,
)
_PLAIN = re.compile(r"-?[0-9]{1,18}")
_MULTIPLIERS = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12}
_MULTIPLIER = re.compile(rf"\s*(?P<group>\\(?:{TEXT_COMMANDS}|mathrm)\s*\{{)?\s*(?P<word>{'|'.join(_MULTIPLIERS)})s?\b")

_SPACED = re.compile(r"[+-]?[1-9][0-9]{0,2}(?: [0-9]{3}){2,}")  # 1 000 000; but 1 234 may be two numbers

THOUSANDS = (re.compile(r"(?<=[0-9])\s*(?:,\s*\\[!,]|\\[!,]\s*,)\s*(?=[0-9]{3}(?![0-9]))"), ",")
"""Thousands as MATH writes them: `4,\\! 321`, `111, \\! 111`."""

_SYMBOLS = str.maketrans({"−": "-", "–": "-", "\u00a0": " ", "\u202f": " ", "\u2009": " ", "\n": " ", "\t": " "})
_REWRITES = (
    (re.compile(r"\\[dtc]frac"), r"\\frac"),
    THOUSANDS,
    (re.compile(r"\\[!]|\\(?:left|right|displaystyle)\b"), ""),
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"(?<=[0-9])\\,\s*(?=[0-9]{3}(?![0-9]))"), ","),
    (re.compile(r"\\[,;: ]|~|\\q?quad\b"), " "),
    (re.compile(r"\\([$%])"), r"\1"),
    (re.compile(r"\^\s*(?:\{\s*\\circ\s*\}|\\circ)|°|\\degree\b"), " degrees "),
    (re.compile(r"\bper cent\b"), "percent"),
    (re.compile(r"[\\,;\s]+$"), ""),
)


def read_number(text: str) -> Quantity | None:
    """Return the quantity that the whole of `text` writes, or `None` if it is anything else.

    `text` may stand between dollar signs or in one pair of braces. Texts beyond `MAX_LENGTH` or `MAX_EXPONENT` are not
    read: the caller decides what that means.
    """
    if _PLAIN.fullmatch(text):
        return Quantity(Fraction(int(text)))
    if len(text) > MAX_LENGTH:
        return None
    text = _clean(text)
    match = _NUMBER.match(text)
    if match is None or (match["sign"] and match["sign2"]):
        return None
    value = _value(match)
    if value is None:
        return None
    rest = text[match.end() :]
    if multiplier := _MULTIPLIER.match(rest):
        value *= _MULTIPLIERS[multiplier["word"]]
        rest = (multiplier["group"] or "") + rest[multiplier.end() :]
    unit = read_units(match["currency"] + rest)
    if unit == NOT_A_UNIT or (match["currency"] and unit and "·" in unit):
        return None
    negative = "-" in (match["sign"], match["sign2"])
    return Quantity(-value if negative else value, unit)


def _clean(text: str) -> str:
    """`text` in a small common spelling: one minus sign, `\\frac` only, plain spaces, no math delimiters."""
    text = text.translate(_SYMBOLS).strip()
    for opening, closing in (("**", "**"), ("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]")):
        if len(text) > len(opening + closing) and text.startswith(opening) and text.endswith(closing):
            text = text[len(opening) : -len(closing)]
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    text = text.strip()
    if _SPACED.fullmatch(text):
        text = text.replace(" ", ",")
    if inner := re.fullmatch(rf"\\(?:{TEXT_COMMANDS}|mathrm|mathbf)\s*\{{([^{{}}]*)\}}|\{{([^{{}}]*)\}}", text):
        text = (inner[1] or inner[2] or "").strip()
    return text


def _value(match: re.Match[str]) -> Fraction | None:
    """Return the unsigned value of a match of `_NUMBER`; `None` for a zero denominator or too large an exponent."""
    top, bottom = match["top"] or match["top2"], match["bottom"] or match["bottom2"]
    if top:
        return _fraction(match["whole"] or match["whole2"], _exact(top), _exact(bottom))
    digits, power = match["mantissa"] or match["decimal"], match["power"] or match["exponent"]
    if power is None:
        return _exact(digits)
    exponent = int(power.strip("{} "))
    return _exact(digits) * Fraction(10) ** exponent if abs(exponent) <= MAX_EXPONENT else None


def _fraction(whole: str | None, top: Fraction, bottom: Fraction) -> Fraction | None:
    """Return `whole` and top/bottom. A mixed number needs a proper, positive fraction: 2 3/2 is not one."""
    if bottom == 0:
        return None
    if whole is None:
        return top / bottom
    proper = top.denominator == bottom.denominator == 1 and 0 < top < bottom
    return int(whole) + top / bottom if proper else None


def _exact(decimal: str) -> Fraction:
    return Fraction(decimal.strip("{} ").replace(",", "").replace(" ", ""))
