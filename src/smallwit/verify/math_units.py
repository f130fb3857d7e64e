r"""Units and words that trail a number: which are dropped, which contradict each other, which are no unit at all."""

import re

NOT_A_UNIT = "not a unit"
"""What `read_units` says of a text that changes the number's meaning (a variable, an operator, a number word)."""

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
    "mm": "mm millimeter millimeters millimetre millimetres",
    "cm": "cm centimeter centimeters centimetre centimetres",
    "m": "m meter meters metre metres",
    "km": "km kilometer kilometers kilometre kilometres",
    "in": "in inch inches",
    "ft": "ft foot feet",
    "yd": "yd yard yards",
    "mi": "mi mile miles mph",
    "s": "s sec secs second seconds",
    "min": "min mins minute minutes",
    "h": "h hr hrs hour hours",
    "day": "day days",
    "week": "week weeks",
    "month": "month months",
    "year": "year years yr yrs",
    "mg": "mg milligram milligrams",
    "g": "g gram grams",
    "kg": "kg kilogram kilograms kilo kilos",
    "lb": "lb lbs pound pounds",
    "oz": "oz ounce ounces",
    "ml": "ml milliliter milliliters millilitre millilitres",
    "l": "l liter liters litre litres",
    "rad": "rad radian radians",
}
_KNOWN = {word: unit for unit, words in _SPELLINGS.items() for word in words.split()}

# Words that are not dropped: more of the number follows them, or they are functions and constants of mathematics.
_REFUSED = frozenset(
    """half halves third thirds fourth fourths fifth fifths sixth sixths seventh sevenths eighth eighths ninth ninths
    tenth tenths hundredth hundredths thousandth thousandths millionth millionths zero one two three four five six seven
    eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty thirty forty fifty
    sixty seventy eighty ninety tens ones hundred hundreds thousand thousands million millions billion billions trillion
    trillions dozen dozens or and plus minus times over divided multiplied by to not point squared cubed power factorial
    mod modulo remainder choose root pi infinity inf nan sin cos tan cot sec csc log ln exp sqrt max min gcd lcm det
    base if when unless either neither between through from except but""".split()  # noqa: SIM905
)
_LINKS = frozenset(("a", "of", "an", "in", "at", "on", "is"))
_SPACE = re.compile(r"[\s.]+")
_SIGN = re.compile(r"[%$£€¥₹¢]")
_TEXT = re.compile(r"\\(?:text|mbox|mathrm|textrm|textbf|textit|rm|hbox)\s*\{([^{}]*)\}")
_PLAIN_WORD = re.compile(r"[ap]\.\s?m\b|[A-Za-z]+")
_WORD_IN_TEXT = re.compile(r"[ap]\.\s?m\b|\^\{?[23]\}?|[^\s,.!/()^-]+")
_POWER = re.compile(r"\s*(?:\^\s*\{?\s*[23]\s*\}?|[²³])")


def read_units(tail: str) -> str | None:
    r"""The first known unit in what follows a number, with its power, as `cm^2`; `None` for none or for other words.

    `NOT_A_UNIT` if the tail cannot be dropped: `x`, `\pi`, `+ 1`, "and a half". Words outside `\text{}` must look like
    words and not like a product of variables (`5 abc`, `5m`).
    """
    words = _words(tail)
    if words is None:
        return NOT_A_UNIT
    found: list[str] = []
    power = ""
    for position, word in enumerate(words):
        if word in ("^2", "^3"):
            if found:
                found[-1] = found[-1].split("^")[0] + word
        elif word in ("square", "sq", "cubic", "cu"):
            power = "^2" if word[0] == "s" else "^3"
        elif word in _KNOWN:
            found.append(_KNOWN[word] + power)
            power = ""
        elif word in _REFUSED or re.search("[0-9]", word):
            return NOT_A_UNIT
        elif len(word) == 1 and not (word == "a" and position):
            return NOT_A_UNIT  # a variable, whatever font it is set in
    return found[0] if found else None


def _words(tail: str) -> list[str] | None:
    """The words of a tail in lower case, powers as `^2`; `None` if it holds something else than words."""
    words: list[str] = []
    spaced = False
    while tail:
        if space := _SPACE.match(tail):
            length = space.end()
        elif words and (power := _POWER.match(tail)):
            words.append("^2" if re.search("[2²]", power[0]) else "^3")
            length = power.end()
        elif sign := _SIGN.match(tail):
            words.append(sign[0])
            length = sign.end()
        elif text := _TEXT.match(tail):
            words += [re.sub(r"[.\s{}]", "", word.lower()) for word in _WORD_IN_TEXT.findall(text[1])]
            length = text.end()
        elif (plain := _PLAIN_WORD.match(tail)) and _is_word(plain[0], spaced, bool(words)):
            words.append(re.sub(r"[.\s]", "", plain[0].lower()))
            length = plain.end()
        elif words and tail[0] in "/,!-":
            length = 1
        else:
            return None
        spaced = tail[length - 1] in " .\n/-"
        tail = tail[length:]
    return words


def _is_word(word: str, spaced: bool, follows: bool) -> bool:
    """Whether letters outside `\\text{}` are a unit or an English word, not a product of variables."""
    lower = re.sub(r"[.\s]", "", word.lower())
    if lower in _KNOWN:
        return len(lower) > 1 or (follows and spaced)
    if not spaced:
        return False
    if lower in _LINKS:
        return follows
    if len(lower) < 3 or not re.search("[aeiou]", lower):
        return lower in ("sq", "cu")
    return len(lower) > 3 or list(lower) != sorted(lower)
