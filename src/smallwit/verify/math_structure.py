r"""The shape of an answer: list, tuple, interval, union, matrix, named value.

Two answers are compared shape by shape (`math_compare`), and only their leaves as mathematics, so that an open interval
is never a closed one and a tuple never a set, whatever their values are.
"""

import re
from dataclasses import dataclass, field, replace

from smallwit.verify.math_text import key, words
from smallwit.verify.numbers import read_number


@dataclass(frozen=True, slots=True)
class AnswerNode:
    """`kind` is `leaf`, `items` (unordered), `sequence` (tuple or interval, in `brackets`), `union` or `matrix`.

    `text` is the whole answer without its name, `name` what stands before an equals sign (`x`, `f(x)`), `parts` what it
    holds: for a matrix, rows of kind `sequence`. Items in braces have `\\{\\}` as their `brackets`.
    """

    kind: str
    text: str
    name: str | None = None
    parts: tuple["AnswerNode", ...] = field(default=())
    brackets: str = ""


_CONJUNCTION = re.compile(
    r"\\text\s*\{[\s,;]*(?:and|or)?[\s,;]*\}|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])|\\(?:lor|vee)(?![A-Za-z])"
)
_THOUSANDS = re.compile(r"(?<![0-9,])([1-9][0-9]{0,2}(?:,[0-9]{3})+)(?![0-9])")
_OR = re.compile(r"\\text\s*\{\s*or\s*\}|(?<![A-Za-z\\])or(?![A-Za-z])|\\(?:lor|vee)(?![A-Za-z])")
_CASES = re.compile(r"\\begin\{(cases|aligned|array)\}(?:\{[lcr]*\})?(.*)\\end\{\1\}", re.DOTALL)
_MATRIX = re.compile(r"\\begin\{([pbB]?matrix)\}(.*)\\end\{\1\}", re.DOTALL)
_GREEK = r"\\(?:alpha|beta|gamma|delta|epsilon|theta|lambda|mu|nu|phi|varphi|rho|sigma|tau|omega|Delta)"
_NAME = re.compile(
    rf"(?:m\s*)?(?:\\(?:angle|triangle)\s*)?(?:{_GREEK}\s*|[A-Za-z]{{1,3}}|\\(?:overline|mathbf|vec|text)\s*\{{[^{{}}]*\}})?'?"
    r"(?:_(?:\{[A-Za-z0-9+-]+\}|[A-Za-z0-9]))?(?:\^\{-1\})?(?:\([A-Za-z0-9,\s]{1,9}\))?|\(\s*[A-Za-z](?:\s*,\s*[A-Za-z])+\s*\)"
    # |AB| is a length and \frac{a}{b} a ratio of two letters; |x| = 3 and \frac{x}{2} = 3 have to be solved.
    r"|\|[A-Z]{2}\||\\frac\{[A-Za-z]\}\{[A-Za-z]\}|\\frac\{[A-Z]{2}\}\{[A-Z]{2}\}"
    r"|(?:P|E|\\Pr|\\mathbb\{[PE]\}|\\(?:text|operatorname|mathrm)\{[A-Z][a-z]{0,3}\})\s*[(\[][^()\[\]={}]{1,60}[)\]]"
)
_TUPLE_OF_NAMES = re.compile(r"\(\s*[A-Za-z](?:_[A-Za-z0-9])?(?:\s*,\s*[A-Za-z](?:_[A-Za-z0-9])?)+\s*\)")
_ORDER = re.compile(r"(<|>|\\le(?![A-Za-z])|\\ge(?![A-Za-z]))")
_TURNED = {"<": ">", ">": "<", r"\le": r"\ge", r"\ge": r"\le"}
_TOKEN = re.compile(r"\\[{}]|\\(?:langle|rangle|begin|end|cup|in|approx)(?![A-Za-z])|\\.|[()\[\]{}=]|(?s:.)")
_OPENING = {"(": "(", "[": "[", "{": "{", r"\{": r"\{", r"\langle": "(", r"\begin": "b"}
_CLOSING = {")": ")", "]": "]", "}": "}", r"\}": r"\}", r"\rangle": ")", r"\end": "e"}


def parse(spelled: str) -> AnswerNode:
    """Return the shape of an answer that is in the spelling of `math_text.spell`."""
    if read_number(spelled) is not None:
        return AnswerNode("leaf", spelled)
    if (plain := words(spelled)) is not None:
        choices = [choice for choice in re.split(r"[\s,;()]+|\band\b", plain) if choice]
        letters = len(choices) > 1 and all(len(choice) == 1 for choice in choices)
        return _list(spelled, [rf"\text{{{choice}}}" for choice in choices]) if letters else AnswerNode("leaf", spelled)
    if (alternatives := _alternatives(spelled)) is not None:
        return alternatives
    sides = split(spelled, "=")
    if len(sides) == 1:
        for sign in (r"\in", r"\approx"):
            members = split(spelled, sign)
            if len(members) == 2 and members[0] and _NAME.fullmatch(members[0]):
                value = _shape(members[1])
                return replace(value, name=key(members[0]))
        return _shape(spelled)
    items = _items(spelled)
    if len(items) > 1:
        return _list(spelled, items)
    first, last = sides[0], sides[-1]
    if len(sides) == 2 and _TUPLE_OF_NAMES.fullmatch(first):
        return _named_tuple(first, _shape(last))
    if (cases := _cases(spelled)) is not None:
        return cases
    if not _NAME.fullmatch(first) and _NAME.fullmatch(last) and len(sides) == 2:
        first, last = last, first
    if not first or not _NAME.fullmatch(first):
        return AnswerNode("leaf", spelled)
    if len(sides) == 2:
        return replace(_shape(last), name=key(first))
    return AnswerNode("leaf", "=".join(sides[1:]), key(first))


def _alternatives(spelled: str) -> AnswerNode | None:
    """Return `x < 2` or `x > 7` as a union of intervals."""
    found = _OR.split(spelled)
    if len(found) < 2:
        return None
    intervals = [as_interval(AnswerNode("leaf", part.strip())) for part in found]
    parts = tuple(interval for interval in intervals if interval is not None)
    if len(parts) < len(found) or len({part.name for part in parts}) > 1:
        return None
    return AnswerNode("union", spelled, parts[0].name, tuple(replace(part, name=None) for part in parts))


def _named_tuple(names: str, value: AnswerNode) -> AnswerNode:
    """Return `(a, b) = (2, 5)`: the value keeps the names, for an answer that says `a = 2, b = 5`."""
    return replace(value, name=key(names)) if value.kind == "sequence" else AnswerNode("leaf", value.text, key(names))


def named_items(node: AnswerNode) -> AnswerNode:
    """Return `(a, b) = (2, 5)` as the items `a = 2` and `b = 5`; any other shape as it is."""
    names = (node.name or "").strip("()").split(",")
    if node.kind != "sequence" or node.brackets != "()" or not 1 < len(names) == len(node.parts):
        return node
    parts = tuple(replace(part, name=name.strip()) for part, name in zip(node.parts, names, strict=True))
    return AnswerNode("items", node.text, parts=parts)


def as_interval(leaf: AnswerNode) -> AnswerNode | None:
    r"""Return the interval that an inequality in one variable describes (`1 \le x < 3`, `x > 2`), or `None`."""
    sides = [side.strip() for side in _ORDER.split(leaf.text)]
    if len(sides) == 3 and re.fullmatch("[a-z]", sides[0]):
        sides = [r"-\infty", "<", *sides] if sides[1] in ("<", r"\le") else [*sides[::-1], "<", r"\infty"]
        sides = [{">": "<", r"\ge": r"\le"}.get(side, side) for side in sides]
    elif len(sides) == 3 and re.fullmatch("[a-z]", sides[2]):
        return as_interval(AnswerNode("leaf", " ".join((sides[2], _TURNED.get(sides[1], ""), sides[0]))))
    elif len(sides) == 5 and {sides[1], sides[3]} <= {">", r"\ge"}:
        sides = [_TURNED.get(side, side) for side in sides[::-1]]
    if len(sides) != 5 or not re.fullmatch("[a-z]", sides[2]) or not {sides[1], sides[3]} <= {"<", r"\le"}:
        return None
    brackets = ("(" if sides[1] == "<" else "[") + (")" if sides[3] == "<" else "]")
    bounds = (parse(sides[0]), parse(sides[4]))
    return AnswerNode("sequence", leaf.text, leaf.name or sides[2], bounds, brackets)


def _shape(text: str) -> AnswerNode:
    if read_number(text) is not None:
        return AnswerNode("leaf", text)
    matrix = _MATRIX.fullmatch(text)
    if matrix and "\\begin" not in matrix[2]:
        rows = [row for row in matrix[2].split(r"\\") if row.strip()]
        cells = (tuple(_shape(cell.strip()) for cell in row.split("&")) for row in rows)
        return AnswerNode("matrix", text, parts=tuple(AnswerNode("sequence", "", parts=row) for row in cells))
    if (cases := _cases(text)) is not None:
        return cases
    sets = split(text, r"\cup")
    if len(sets) > 1:
        return AnswerNode("union", text, parts=tuple(_shape(part) for part in sets))
    items = _items(text)
    if len(items) > 1:
        return _list(text, items)
    inner = _inside(text)
    if inner is not None:
        brackets, content = inner
        held = _items(content, everywhere=True)
        if brackets == r"\{\}":
            return _set(text, held)
        if len(held) > 1:
            return AnswerNode("sequence", text, parts=tuple(parse(item) for item in held), brackets=brackets)
        if brackets == "()":
            return parse(content)
    if text.count(r"\pm") == 1 and r"\mp" not in text:
        both = [text.replace(r"\pm", sign).strip() for sign in ("+", "-")]
        return _list(text, [both[0].removeprefix("+").strip(), both[1]])
    return AnswerNode("leaf", text)


def _cases(text: str) -> AnswerNode | None:
    """Return the lines of a `cases` environment: equations that hold together, or values with their conditions."""
    found = _CASES.fullmatch(text)
    if found is None or "\\begin" in found[2]:
        return None
    lines = [line.strip().rstrip(",;.") for line in found[2].split(r"\\") if line.strip()]
    if not any("&" in line for line in lines):
        return AnswerNode("items", text, parts=tuple(parse(line) for line in lines))
    rows = (tuple(parse(cell.strip().strip(",")) for cell in line.split("&")) for line in lines)
    return AnswerNode(
        "items", text, parts=tuple(AnswerNode("sequence", "", parts=row, brackets="case") for row in rows)
    )


def _unique(items: list[str]) -> tuple[AnswerNode, ...]:
    """Return the items, equal ones once; those that are lists themselves (a pm) are merged, sets are not."""
    parts: dict[str, AnswerNode] = {}
    for item in items:
        node = parse(item)
        for part in node.parts if node.kind == "items" and not node.brackets else (node,):
            parts.setdefault(f"{part.name}={identity(part.text)}{part.brackets}", part)
    return tuple(parts.values())


def _list(text: str, items: list[str]) -> AnswerNode:
    """Return an unordered list; one of a single item is that item."""
    parts = _unique(items)
    return parts[0] if len(parts) == 1 else AnswerNode("items", text, parts=parts)


def _set(text: str, items: list[str]) -> AnswerNode:
    return AnswerNode("items", text, parts=_unique(items), brackets=r"\{\}")


def identity(text: str) -> str:
    """Return a string that is equal for equal numbers and for answers in one spelling. Takes the output of `spell`."""
    number = read_number(text)
    return key(text) if number is None else str(number.value)


def split(text: str, *separators: str) -> list[str]:
    """Return `text` split at tokens that stand outside all brackets."""
    parts, start, depth = [], 0, 0
    for match in _TOKEN.finditer(text):
        token = match[0]
        depth += (token in _OPENING) - (token in _CLOSING)
        if token in separators and depth == 0:
            parts.append(text[start : match.start()].strip())
            start = match.end()
    return [*parts, text[start:].strip()]


def _items(text: str, everywhere: bool = False) -> list[str]:
    """Return `text` split at commas, semicolons, "and", "or" outside brackets; thousands separators do not split.

    `everywhere`: within brackets a comma always splits, since (1,234) is a pair.
    """
    text = _CONJUNCTION.sub(",", text)
    if not everywhere:
        text = _THOUSANDS.sub(lambda match: match[0].replace(",", "\0"), text)
    found = [item.replace("\0", ",") for item in split(text, ",", ";")]
    # Within brackets nothing between two commas is an item too, and no formula: (1,,2) is no pair.
    return found[: -1 if not found[-1] else None] if everywhere else [item for item in found if item]


def _inside(text: str) -> tuple[str, str] | None:
    """Return the bracket pair around the whole of `text`, as "(]", and what it holds."""
    opening = next((token for token in ("(", "[", r"\{", r"\langle") if text.startswith(token)), None)
    closing = next((token for token in (")", "]", r"\}", r"\rangle") if text.endswith(token)), None)
    if opening is None or closing is None or len(text) < len(opening) + len(closing):
        return None
    depth = 0
    for match in _TOKEN.finditer(text):
        depth += (match[0] in _OPENING) - (match[0] in _CLOSING)
        if depth == 0 and match.end() < len(text):
            return None
    brackets = _OPENING[opening] + _CLOSING[closing]
    return (brackets, text[len(opening) : -len(closing)].strip()) if depth == 0 else None
