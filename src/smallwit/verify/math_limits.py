"""Static limits on an answer, checked before anything is parsed: what is over them was written to harm.

They need not catch every bomb, since the process that parses the answer has limits of its own; they make the usual ones
cheap.
"""

import re
from math import log10

MAX_CHARACTERS = 4096
MAX_DIGITS = 256
MAX_NESTING = 64
MAX_EXPONENT = 10_000
MAX_TOWER = 3
MAX_FACTORIAL = 5_000
MAX_BINOMIAL = 50_000

_DIGIT_RUN = re.compile(rf"[0-9]{{{MAX_DIGITS + 1}}}")
_EXPONENT = re.compile(r"(?:\^|\*\*)\s*[({]*\s*[+-]?\s*([0-9][0-9,]*)|[0-9.][eE][+-]?([0-9]+)")
_RAISED_POWER = re.compile(r"\^\s*[({]\s*([0-9]{1,256})\s*\^\s*[({]?\s*([0-9]{1,256})")
_CHAIN = re.compile(r"(?:(?:\^|\*\*)\s*[A-Za-z0-9.]+\s*)+")
_FACTORIAL = re.compile(r"(?<!\\)!(?!=)")
_GROUP_FACTORIAL = re.compile(r"[)\]}]\s*!(?!=)")
_BINOMIAL = re.compile(r"\\[dt]?binom|\\choose")
_NUMBER = re.compile(r"[0-9]+")
_POWER = re.compile(r"\^|\*\*")


def over_limit(text: str) -> str | None:
    """Return the name of the first limit that `text` exceeds (`length`, `digits`, ...), or `None`; in linear time."""
    if len(text) > MAX_CHARACTERS:
        return "length"
    if _DIGIT_RUN.search(text):
        return "digits"
    nesting, tower = _depths(text)
    if nesting > MAX_NESTING:
        return "nesting"
    exponents = (int((plain or science).replace(",", "")) for plain, science in _EXPONENT.findall(text))
    raised = (int(power) * log10(int(base) or 1) for base, power in _RAISED_POWER.findall(text))
    if max(exponents, default=0) > MAX_EXPONENT or max(raised, default=0.0) > log10(MAX_EXPONENT):
        return "exponent"
    if tower > MAX_TOWER:
        return "tower"
    largest = max((int(number) for number in _NUMBER.findall(text)), default=0)
    if _FACTORIAL.search(text) and (
        largest > MAX_FACTORIAL
        or "!!!" in text
        or (largest >= 10 and _POWER.search(text) and _GROUP_FACTORIAL.search(text))
    ):
        return "factorial"
    if _BINOMIAL.search(text) and (largest > MAX_BINOMIAL or _POWER.search(text)):
        return "binomial"
    return None


def _depths(text: str) -> tuple[int, int]:
    """Return how deep brackets stand in brackets, and how deep exponents stand in exponents."""
    chains = (len(_POWER.findall(match[0])) for match in _CHAIN.finditer(text))
    deepest = 0
    tower = max(chains, default=0)
    open_groups: list[bool] = []
    exponents = 0
    raised = False
    for character in text:
        if character in "([{":
            open_groups.append(raised)
            exponents += raised
            deepest = max(deepest, len(open_groups))
            tower = max(tower, exponents)
        elif character in ")]}" and open_groups:
            exponents -= open_groups.pop()
        elif raised and not character.isspace():
            tower = max(tower, exponents + 1)
        if not character.isspace():
            raised = character == "^"
    return deepest, tower
