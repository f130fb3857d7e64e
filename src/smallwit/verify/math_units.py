r"""Units and words that trail a number: which are dropped, which contradict each other, which are no unit at all.

A word is dropped if it is a unit, or on the list of words that leave a number what it is (`math_nouns`). No other is.
"""

import re

from smallwit.verify.math_nouns import is_noun

NOT_A_UNIT = "not a unit"
"""What `read_units` says of a text that may change the number's meaning (a variable, an operator, an unknown word)."""

TEXT_COMMANDS = "text|mbox|hbox|textbf|textit|textrm|texttt|textsf|textup|textsl|textsc|textnormal"
"""Commands whose group is text and not mathematics."""

_SPELLINGS = {
    "%": "% percent",
    "°": "degree degrees deg",
    "$": "$ dollar dollars usd buck bucks",
    "¢": "¢ cent cents",
    "£": "£",
    "€": "€ euro euros",
    "¥": "¥ yen",
    "₹": "₹ rupee rupees",
    "am": "am",
    "pm": "pm",
    "nm": "nm nanometer nanometers",
    "mm": "mm millimeter millimeters millimetre millimetres",
    "cm": "cm centimeter centimeters centimetre centimetres",
    "m": "m meter meters metre metres",
    "km": "km kilometer kilometers kilometre kilometres",
    "in": "in inch inches",
    "ft": "ft foot feet",
    "yd": "yd yard yards",
    "mi": "mi mile miles",
    "ms": "ms millisecond milliseconds",
    "s": "s sec secs second seconds",
    "min": "min mins minute minutes",
    "h": "h hr hrs hour hours",
    "day": "day days",
    "week": "week weeks",
    "month": "month months",
    "year": "year years yr yrs",
    "decade": "decade decades",
    "century": "century centuries",
    "mg": "mg milligram milligrams",
    "g": "g gram grams",
    "kg": "kg kgs kilogram kilograms kilo kilos",
    "lb": "lb lbs pound pounds",
    "oz": "oz ounce ounces",
    "t": "ton tons tonne tonnes",
    "ml": "ml mL milliliter milliliters millilitre millilitres",
    "l": "l L liter liters litre litres",
    "gal": "gal gallon gallons",
    "qt": "qt quart quarts",
    "pt": "pint pints",
    "acre": "acre acres",
    "ha": "ha hectare hectares",
    "rad": "rad rads radian radians",
    "N": "N newton newtons",
    "J": "J joule joules",
    "kJ": "kJ",
    "cal": "cal",
    "kcal": "kcal",
    "eV": "eV",
    "keV": "keV",
    "MeV": "MeV",
    "GeV": "GeV",
    "erg": "erg ergs",
    "W": "W watt watts",
    "kW": "kW kilowatt kilowatts",
    "MW": "MW",
    "kWh": "kWh",
    "A": "A amp amps ampere amperes",
    "mA": "mA",
    "V": "V volt volts",
    "kV": "kV",
    "mV": "mV",
    "ohm": "ohm ohms",
    "F": "F farad farads",
    "C": "C coulomb coulombs",
    "T": "T tesla",
    "K": "K kelvin kelvins",
    "H": "H henry",
    "Hz": "Hz hertz",
    "kHz": "kHz",
    "MHz": "MHz",
    "GHz": "GHz",
    "Pa": "Pa pascal pascals",
    "kPa": "kPa",
    "MPa": "MPa",
    "atm": "atm",
    "mol": "mol mole moles",
    "dyn": "dyne dynes",
    "pc": "parsec parsecs",
    "AU": "AU",
}
_KNOWN = {word: unit for unit, words in _SPELLINGS.items() for word in words.split()}
_QUOTIENTS = {"mph": ["mi", "/", "h"], "kph": ["km", "/", "h"], "kmh": ["km", "/", "h"]}

_PREFIXES = {"square": "^2", "sq": "^2", "cubic": "^3", "cu": "^3"}
_PER = frozenset(("/", "per"))
_ARTICLES = frozenset(("a", "an"))
_PREPOSITIONS = frozenset(("in", "of", "for", "at", "on"))
_CURRENCIES = frozenset("$¢£€¥₹")
_LOOSE = frozenset(("unit", "units", "each"))
_TEMPERATURES = {"C": "°C", "F": "°F", "celsius": "°C", "fahrenheit": "°F", "centigrade": "°C"}

_SPACE = re.compile(r"(?:\s|~|\.(?![0-9]))+")
_SIGN = re.compile(r"[%$£€¥₹¢]")
_TEXT = re.compile(rf"\\(?:{TEXT_COMMANDS}|mathrm|rm|operatorname)\s*\{{([^{{}}]*)\}}")
_PLAIN_WORD = re.compile(r"[ap]\.\s?m\b|[A-Za-z]+")
_WORD_IN_TEXT = re.compile(r"[ap]\.\s?m\b|\^\{?-?[0-9]\}?|/|[^\s,.!/()^~·*-]+")
_POWER = re.compile(r"\s*(?:\^\s*\{?\s*(-?[0-9])\s*\}?|([²³]))")


def read_units(tail: str) -> str | None:
    r"""Return the units in what follows a number, as `cm^2` or `km/h`; `None` where there are no known ones.

    `NOT_A_UNIT` if the tail cannot be dropped: `x`, `\pi`, `+ 1`, "and a half", "elevenths". Words outside `\text{}`
    must stand apart, and must not be a product of variables (`5 abc`, `5m`).
    """
    words = _words(tail)
    if words is None:
        return NOT_A_UNIT
    factors: list[tuple[str, int]] = []
    power, below, counted = 1, False, False
    for position, word in enumerate(words):
        ahead = words[position + 1] if position + 1 < len(words) else ""
        unit = _unit(word, ahead)
        if word.startswith("^"):
            if not factors or counted:
                return NOT_A_UNIT
            name, sign = factors[-1]
            factors[-1] = (name, sign * int(word[1:]))
        elif word in _PREFIXES and (_unit(ahead, "") or ahead in _LOOSE):
            power = int(_PREFIXES[word][1])
        elif word in _PER:
            if below or not ahead:
                return NOT_A_UNIT
            below = True
        elif factors and factors[-1][0] == "°" and word in _TEMPERATURES:
            factors[-1] = (_TEMPERATURES[word], 1)
        elif unit and unit in _CURRENCIES and (unit, 1) in factors:
            counted = False  # $5 dollars
        elif unit:
            factors.append((unit, -power if below else power))
            power, below, counted = 1, False, False
        elif word in _ARTICLES and position and (_unit(ahead, "") or is_noun(ahead)):
            below = bool(_unit(ahead, "") and factors) and words[position - 1] not in _PREPOSITIONS
        elif (is_noun(word) or word in _LOOSE) and len(word) > 1:
            if below:
                factors.append((word.removesuffix("s"), -1))
            power, below, counted = 1, False, True
        elif word == "times" and not ahead:
            counted = True
        else:
            return NOT_A_UNIT
    return None if below and not factors else _written(factors)


def _unit(word: str, ahead: str) -> str | None:
    """Return the unit that a word names. "in" before another word is a preposition."""
    if word == "in" and ahead and ahead not in _PER and not ahead.startswith("^"):
        return None
    return _KNOWN.get(word) or (_KNOWN.get(word.lower()) if len(word) > 1 else None)


def _written(factors: list[tuple[str, int]]) -> str | None:
    """Return the factors in an order of their own; equal ones are one power."""
    powers: dict[str, int] = {}
    for name, sign in factors:
        powers[name] = powers.get(name, 0) + sign
    above = [_raised(name, power) for name, power in sorted(powers.items()) if power > 0]
    below = [_raised(name, -power) for name, power in sorted(powers.items()) if power < 0]
    return "/".join(["·".join(above), *below]) if above or below else None


def _raised(name: str, power: int) -> str:
    return name if power == 1 else f"{name}^{power}"


def _words(tail: str) -> list[str] | None:
    """Return the words of a tail, powers as `^2`, "/" for a stroke; `None` if it holds something else than words."""
    words: list[str] = []
    spaced = False
    while tail:
        if space := _SPACE.match(tail):
            length = space.end()
        elif words and (power := _POWER.match(tail)):
            words.append("^" + (power[1] or ("2" if power[2] == "²" else "3")))
            length = power.end()
        elif sign := _SIGN.match(tail):
            words.append(sign[0])
            length = sign.end()
        elif text := _TEXT.match(tail):
            inner = re.sub(r"\s*\\?[ ,;]\s*", " ", text[1])
            found = [re.sub(r"\.\s?|\s(?=m$)", "", word) for word in _WORD_IN_TEXT.findall(inner)]
            words += [
                word.replace("{", "").replace("}", "") if word.startswith("^") else _cased(word) for word in found
            ]
            length = text.end()
        elif (plain := _PLAIN_WORD.match(tail)) and _is_word(plain[0], spaced, bool(words)):
            words.append(_cased(re.sub(r"[.\s]", "", plain[0])))
            length = plain.end()
        elif words and (product := re.match(r"\s*(?:\\cdot(?![A-Za-z])|·)", tail)):
            length = product.end()
        elif words and tail[0] == "/":
            words.append("/")
            length = 1
        elif words and tail[0] in ",!-":
            length = 1
        else:
            return None
        spaced = tail[length - 1] in " .\n/-~"
        tail = tail[length:]
    return [each for word in words for each in _QUOTIENTS.get(word, [word])]


def _cased(word: str) -> str:
    """Return a symbol as it is written (`N`, `mA`), a word in lower case."""
    return word if word in _KNOWN or len(word) == 1 else word.lower()


def _is_word(word: str, spaced: bool, follows: bool) -> bool:
    """Whether letters outside `\\text{}` are a unit or a word of the list, not a product of variables."""
    name = _cased(re.sub(r"[.\s]", "", word))
    if name in _KNOWN or name in _QUOTIENTS:
        return len(name) > 1 or (follows and spaced)
    return spaced and (
        (len(name) > 1 and is_noun(name)) or name in _PREFIXES or name == "per" or name in ("a", "an", "times")
    )


def is_unit(word: str) -> bool:
    """Return whether a word is a unit of the list, or a prefix of one (`square`)."""
    return word in _KNOWN or word in _PREFIXES or word in _QUOTIENTS
