"""Comparison of two answers by their shape, in three values while formulas wait for their process."""

import re
from collections.abc import Callable, Sequence
from itertools import pairwise, permutations

from smallwit.verify.math_formula import readable
from smallwit.verify.math_structure import AnswerNode, as_interval, named_items, split
from smallwit.verify.math_text import key, words
from smallwit.verify.math_units import NOT_A_UNIT, read_units
from smallwit.verify.numbers import Quantity, read_number

MAX_ITEMS = 40
"""Longest list that is compared item by item; longer ones are equal only as strings."""

MAX_UNIT = 100
"""Characters at the end of a formula in which its unit is looked for, so that the time stays linear."""

Oracle = Callable[[str, str], bool | None]
"""Whether two formulas are equal: `oracle(gold, answer)` is `None` while it is not known yet."""

_BASE = re.compile(
    r"(-?)\(?(?:\\(?:text|mathrm)\s*\{)?([0-9A-Z]*[0-9][0-9A-Z]*(?:\.[0-9A-Z]+)?)\}?\)?_(?:\{?\(?([0-9]{1,2})\)?\}?)"
)
_CLOCK = re.compile(r"([0-9]{1,2})(?::([0-5][0-9]))?(?::([0-5][0-9]))?(?:([ap])\.?m\.?)?", re.IGNORECASE)
_UNIT_TAIL = re.compile(
    r"(?:\\degree|%|\\(?:text|mathrm|operatorname)\s*\{[^{}]*\}(?:\s*\^\s*\{?-?[0-9]\}?)?|\\cdot(?=\s*\\)|/(?=\s*\\)|\s|\.)+$"
)
_ANGLE = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![A-Za-z])")
_RELATION = re.compile(r"=|<|>|\\(?:le|ge|ne|in|approx)(?![A-Za-z])")
_LETTER = re.compile(r"(?<![\\A-Za-z])[A-Za-z]")
_PRODUCT = re.compile("[A-Za-z]{2,3}")
_DECIMAL = re.compile(r"-?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)")
_WORDY = re.compile(r"\\text\b|\\begin|(?<![\\A-Za-z])[A-Za-z]{4,}")
_CHOICE = re.compile("[A-J]")
_TURNED_COORDINATES = frozenset(f"({','.join(names)})" for names in (*permutations("xyz"), "xy", "yx")) - {
    "(x,y,z)",
    "(x,y)",
}


def equal(gold: AnswerNode, answer: AnswerNode, oracle: Oracle) -> bool | None:
    """Return whether the answers are equal; `None` if that depends on formulas that `oracle` does not know yet."""
    if gold.kind == "items" and len(gold.parts) == 1 and answer.kind != "items":
        return equal(gold.parts[0], answer, oracle)  # the set of one solution, answered by the solution
    if gold.kind == "items" and answer.kind == "leaf" and re.fullmatch(r"[0-9,]+", answer.text):
        # 100,200 was read as one number; the gold answer says that it is two.
        parts = tuple(AnswerNode("leaf", part) for part in answer.text.split(","))
        answer = AnswerNode("items", answer.text, answer.name, parts)
    if gold.kind == "items" and answer.kind == "sequence":
        answer = named_items(answer)
    elif gold.kind == "sequence" and answer.kind == "items" and all(part.name for part in answer.parts):
        gold = named_items(gold)
    return _same_shape(gold, answer, oracle)


def _same_shape(gold: AnswerNode, answer: AnswerNode, oracle: Oracle) -> bool | None:
    """Return the same for the parts of an answer too, where a set is a set and no list."""
    if len(gold.parts) > MAX_ITEMS or len(answer.parts) > MAX_ITEMS:
        return key(gold.text) == key(answer.text) and gold.name == answer.name
    if gold.kind != answer.kind and (interval := as_interval(gold if gold.kind == "leaf" else answer)):
        # [2, oo) and "x >= 2" say the same.
        gold, answer = (interval, answer) if gold.kind == "leaf" else (gold, interval)
    if gold.kind != answer.kind:
        return False
    if gold.kind == "leaf":
        return _leaf(gold, answer, oracle)
    if gold.name and answer.name and gold.name != answer.name:
        return False
    if gold.kind == "sequence":
        if not gold.name and answer.name in _TURNED_COORDINATES:
            return False
        return gold.brackets == answer.brackets and _in_order(gold.parts, answer.parts, oracle)
    if gold.kind == "matrix":
        return _in_order(gold.parts, answer.parts, oracle)
    names = {part.name for part in gold.parts}
    if len(names) > 1 and not any(part.name for part in answer.parts):
        # "a = 1, b = 2" answered by "1, 2": without names the order has to say which is which.
        return _in_order(gold.parts, answer.parts, oracle)
    return _any_order(gold.parts, answer.parts, oracle)


def _in_order(gold: Sequence[AnswerNode], answer: Sequence[AnswerNode], oracle: Oracle) -> bool | None:
    if len(gold) != len(answer):
        return False
    return _all([_part(one, other, oracle) for one, other in zip(gold, answer, strict=True)])


def _part(gold: AnswerNode, answer: AnswerNode, oracle: Oracle) -> bool | None:
    if "items" in (gold.kind, answer.kind) and gold.brackets != answer.brackets:
        return False  # {{1, 2}, 3} is not {1, 2, 3}
    return _same_shape(gold, answer, oracle)


def _all(verdicts: Sequence[bool | None]) -> bool | None:
    return False if False in verdicts else None if None in verdicts else True


def _any(verdicts: Sequence[bool | None]) -> bool | None:
    return True if True in verdicts else None if None in verdicts else False


def _any_order(gold: Sequence[AnswerNode], answer: Sequence[AnswerNode], oracle: Oracle) -> bool | None:
    """Return whether every part of the one has a part of its own in the other. The first that is equal will do."""
    if len(gold) != len(answer):
        return False
    left, undecided = list(answer), False
    for one in gold:
        verdicts: list[bool | None] = []
        for other in left:
            verdicts.append(_part(one, other, oracle))
            if verdicts[-1]:
                left.remove(other)
                break
        else:
            if None not in verdicts:
                return False
            undecided = True
    return None if undecided else True


def _leaf(gold: AnswerNode, answer: AnswerNode, oracle: Oracle) -> bool | None:
    gold_equation, answer_equation = _equation(gold), _equation(answer)
    if gold.name and answer.name and gold.name != answer.name:
        # "xy = 6" and "yx = 6" are equations whose left sides are no names.
        return _formula(gold_equation, answer_equation, oracle)
    unsolved = bool(_LETTER.search(gold.text)) or bool(_PRODUCT.fullmatch(gold.name or ""))
    if gold.name and not answer.name and "=" in answer.text and unsolved:
        # "y = 2x + 3" answered by "2x - y + 3 = 0". An equation in one unknown has to be solved, as the gold answer is.
        return _formula(gold_equation, answer.text, oracle)
    if not gold.name and _LETTER.search(gold.text) and _RELATION.search(gold.text):
        return _formula(gold.text, answer_equation, oracle)  # its sides are no answers
    values, claims = _groups(gold.text), _groups(answer.text)
    if len(values) == len(values[0]) == len(claims) == len(claims[0]) == 1:
        return _formula(gold.text, answer.text, oracle)
    return _chain([side for group in values for side in group], claims, oracle)


def _equation(node: AnswerNode) -> str:
    return f"{node.name}={node.text}" if node.name else node.text


def _groups(text: str) -> list[list[str]]:
    r"""Return the sides of a chain: `a = b \approx c` is `[[a, b], [c]]`."""
    return [split(group, "=") for group in split(text, r"\approx")]


def _chain(values: list[str], claims: list[list[str]], oracle: Oracle) -> bool | None:
    """Return whether all sides of one group are the value, and the groups agree as far as they are given."""
    if not all(side.strip() for group in claims for side in group):
        return False
    right = [_all([_any([_formula(value, side, oracle) for value in values]) for side in group]) for group in claims]
    roundings = [_rounded(one[-1], other[0], oracle) for one, other in pairwise(claims)]
    others = [_all([_formula(group[0], side, oracle) for side in group[1:]]) for group in claims]
    return _all([_any(right), *roundings, *others])


def _rounded(one: str, other: str, oracle: Oracle) -> bool | None:
    """Return whether one side is a decimal that the other side rounds to."""
    (one, unit), (other, other_unit) = _without_unit(one), _without_unit(other)
    if unit and other_unit and unit != other_unit:
        return False
    if _DECIMAL.fullmatch(other):
        return readable(one) and oracle(one, rf"\approx {other}")
    return bool(_DECIMAL.fullmatch(one)) and readable(other) and oracle(other, rf"\approx {one}")


def _formula(gold: str, answer: str, oracle: Oracle) -> bool | None:
    if not gold.strip() or not answer.strip():
        return False
    gold_number, answer_number = read_number(gold), read_number(answer)
    if gold_number and answer_number:
        return gold_number.same(answer_number)
    if gold_words := words(gold):
        return gold_words == (words(answer) or key(answer).lower())
    if _CHOICE.fullmatch(gold):
        answer_words = words(answer)
        return (answer_words or key(answer).lower().strip("()")) == gold.lower()
    if key(gold).lstrip("+") == key(answer).lstrip("+"):
        return True
    if (gold_clock := _clock(gold)) and (answer_clock := _clock(answer)):
        return all(one == other or "" in (one, other) for one, other in zip(gold_clock, answer_clock, strict=True))
    gold_base, answer_base = _based(gold), _based(answer)
    if gold_base or answer_base:
        return (gold_base or _in_ten(gold_number)) == (answer_base or _in_ten(answer_number))
    gold, gold_unit = _exact(gold_number) if gold_number else _without_unit(gold)
    answer, answer_unit = _exact(answer_number) if answer_number else _without_unit(answer)
    if gold_unit and answer_unit and gold_unit != answer_unit:
        return False
    if key(gold).lstrip("+") == key(answer).lstrip("+"):
        return True
    if _WORDY.search(gold) or _WORDY.search(answer) or not (readable(gold) and readable(answer)):
        return False
    return oracle(gold, answer)


def _clock(text: str) -> tuple[int, int, int, str] | None:
    """Return the hours, minutes, seconds and `a` or `p` of a time such as `3:30 \\text{ p.m.}`."""
    match = _CLOCK.fullmatch(key(text).replace(" ", "").replace("~", ""))
    if match is None or not (match[2] or match[4]):
        return None
    return int(match[1]), int(match[2] or 0), int(match[3] or 0), (match[4] or "").lower()


def _based(text: str) -> tuple[str, str] | None:
    """Return the digits and the base of a numeral such as `2516_8`."""
    match = _BASE.fullmatch(key(text).replace(" ", "")) or _BASE.fullmatch(text.replace(" ", ""))
    return (match[1] + match[2].lstrip("0"), match[3]) if match else None


def _exact(number: Quantity) -> tuple[str, str | None]:
    """Return a number as a formula that has one reading (`1e-8` has two), and its unit."""
    sign = "-" if number.value < 0 else ""
    top, bottom = abs(number.value.numerator), number.value.denominator
    return (f"{sign}{top}" if bottom == 1 else rf"{sign}\frac{{{top}}}{{{bottom}}}"), number.unit


def _in_ten(number: Quantity | None) -> tuple[str, str] | None:
    return (str(number.value), "10") if number else None


def _without_unit(text: str) -> tuple[str, str | None]:
    """A formula without the unit that trails it, and the unit: `8\\sqrt{3} \\text{ cm}` is `8\\sqrt{3}` and `cm`.

    Degrees behind a trigonometric function are its argument's.
    """
    tail = _UNIT_TAIL.search(text, max(0, len(text) - MAX_UNIT))
    if not tail or not text[: tail.start()].strip() or (r"\degree" in tail[0] and _ANGLE.search(text)):
        return text, None
    unit = read_units(tail[0].replace(r"\degree", " degrees "))
    if unit and ("°" in unit or "rad" in unit) and _ANGLE.search(text):
        return text, None
    return (text, None) if unit == NOT_A_UNIT else (text[: tail.start()].strip(), unit)
