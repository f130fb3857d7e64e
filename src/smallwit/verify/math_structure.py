r"""The shape of an answer: list, tuple, interval, union, matrix, named value.

Two answers are compared shape by shape (`math_compare`), and only their leaves as mathematics, so that an open interval
is never a closed one and a tuple never a set, whatever an algebra system makes of them.
"""

import re
from dataclasses import dataclass, field

from smallwit.verify.math_text import key, words
from smallwit.verify.numbers import read_number


@dataclass(frozen=True, slots=True)
class Node:
    """`kind` is `leaf`, `items` (unordered), `sequence` (tuple or interval, in `brackets`), `union` or `matrix`.

    `text` is the whole answer without its name, `name` what stands before an equals sign (`x`, `f(x)`), `parts` what it
    holds: for a matrix, rows of kind `sequence`.
    """

    kind: str
    text: str
    name: str | None = None
    parts: tuple["Node", ...] = field(default=())
    brackets: str = ""


_CONJUNCTION = re.compile(
    r"\\(?:text|mbox|textrm)\s*\{[\s,;]*(?:and|or)?[\s,;]*\}|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])|\\(?:lor|vee)(?![A-Za-z])"
)
_THOUSANDS = re.compile(r"(?<![0-9,])([1-9][0-9]{0,2}(?:,[0-9]{3})+)(?![0-9])")
_MATRIX = re.compile(r"\\begin\{([pbB]?matrix)\}(.*)\\end\{\1\}", re.DOTALL)
_GREEK = r"\\(?:alpha|beta|gamma|delta|epsilon|theta|lambda|mu|nu|phi|varphi|rho|sigma|tau|omega|Delta)"
_NAME = re.compile(
    rf"(?:m\s*)?(?:\\(?:angle|triangle)\s*)?(?:{_GREEK}\s*|[A-Za-z]{{1,3}}|\\(?:overline|mathbf|vec|text|mbox)\s*\{{[^{{}}]*\}})?'?"
    r"(?:_(?:\{[A-Za-z0-9+-]+\}|[A-Za-z0-9]))?(?:\^\{-1\})?(?:\([A-Za-z0-9,\s]{1,9}\))?|\(\s*[A-Za-z](?:\s*,\s*[A-Za-z])+\s*\)"
)
_ORDER = re.compile(r"(<|>|\\le(?![A-Za-z])|\\ge(?![A-Za-z]))")
_TURNED = {"<": ">", ">": "<", r"\le": r"\ge", r"\ge": r"\le"}
_TOKEN = re.compile(r"\\[{}]|\\(?:langle|rangle|begin|end|cup|in|approx)(?![A-Za-z])|\\.|[()\[\]{}=]|(?s:.)")
_OPENING = {"(": "(", "[": "[", "{": "{", r"\{": r"\{", r"\langle": "(", r"\begin": "b"}
_CLOSING = {")": ")", "]": "]", "}": "}", r"\}": r"\}", r"\rangle": ")", r"\end": "e"}


def parse(spelled: str) -> Node:
    """The shape of an answer that is in the spelling of `math_text.spell`."""
    if read_number(spelled) is not None:
        return Node("leaf", spelled)
    if (plain := words(spelled)) is not None:
        choices = [choice for choice in re.split(r"[\s,;()]+|\band\b", plain) if choice]
        letters = len(choices) > 1 and all(len(choice) == 1 for choice in choices)
        return _list(spelled, [rf"\text{{{choice}}}" for choice in choices]) if letters else Node("leaf", spelled)
    sides = _split(spelled, "=")
    if len(sides) == 1:
        members = _split(spelled, r"\in")
        if len(members) == 2 and _NAME.fullmatch(members[0]):
            spelled = members[1]
        return _shape(_split(spelled, r"\approx")[0] or spelled)
    items = _items(spelled)
    if len(items) > 1:
        return _list(spelled, items)
    first, last = sides[0], sides[-1]
    if not _NAME.fullmatch(first) and _NAME.fullmatch(last) and len(sides) == 2:
        first, last = last, first
    if not first or not _NAME.fullmatch(first):
        return Node("leaf", spelled)
    if len(sides) == 2:
        value = _shape(_split(last, r"\approx")[0] or last)
        return Node(value.kind, value.text, key(first), value.parts, value.brackets)
    return Node("leaf", "=".join(sides[1:]), key(first))


def as_interval(leaf: Node) -> Node | None:
    r"""The interval that an inequality in one variable describes (`1 \le x < 3`, `x > 2`), or `None`."""
    sides = [side.strip() for side in _ORDER.split(leaf.text)]
    if len(sides) == 3 and re.fullmatch("[a-z]", sides[0]):
        sides = [r"-\infty", "<", *sides] if sides[1] in ("<", r"\le") else [*sides[::-1], "<", r"\infty"]
        sides = [{">": "<", r"\ge": r"\le"}.get(side, side) for side in sides]
    elif len(sides) == 3 and re.fullmatch("[a-z]", sides[2]):
        return as_interval(Node("leaf", " ".join((sides[2], _TURNED.get(sides[1], ""), sides[0]))))
    elif len(sides) == 5 and {sides[1], sides[3]} <= {">", r"\ge"}:
        sides = [_TURNED.get(side, side) for side in sides[::-1]]
    if len(sides) != 5 or not re.fullmatch("[a-z]", sides[2]) or not {sides[1], sides[3]} <= {"<", r"\le"}:
        return None
    brackets = ("(" if sides[1] == "<" else "[") + (")" if sides[3] == "<" else "]")
    return Node("sequence", leaf.text, parts=(parse(sides[0]), parse(sides[4])), brackets=brackets)


def _shape(text: str) -> Node:
    if read_number(text) is not None:
        return Node("leaf", text)
    matrix = _MATRIX.fullmatch(text)
    if matrix and "\\begin" not in matrix[2]:
        rows = [row for row in matrix[2].split(r"\\") if row.strip()]
        cells = (tuple(_shape(cell.strip()) for cell in row.split("&")) for row in rows)
        return Node("matrix", text, parts=tuple(Node("sequence", "", parts=row) for row in cells))
    sets = _split(text, r"\cup")
    if len(sets) > 1:
        return Node("union", text, parts=tuple(_shape(part) for part in sets))
    items = _items(text)
    if len(items) > 1:
        return _list(text, items)
    inner = _inside(text)
    if inner is not None:
        brackets, content = inner
        held = _items(content, everywhere=True)
        if brackets == r"\{\}":
            return _list(text, held)
        if len(held) > 1:
            return Node("sequence", text, parts=tuple(parse(item) for item in held), brackets=brackets)
        if brackets == "()":
            return parse(content)
    if text.count(r"\pm") == 1 and r"\mp" not in text:
        both = [text.replace(r"\pm", sign).strip() for sign in ("+", "-")]
        return _list(text, [both[0].removeprefix("+").strip(), both[1]])
    return Node("leaf", text)


def _list(text: str, items: list[str]) -> Node:
    """An unordered list; equal items count once, items that are lists themselves (a pm) are merged."""
    parts: dict[str, Node] = {}
    for item in items:
        node = parse(item)
        for part in node.parts if node.kind == "items" else (node,):
            parts.setdefault(f"{part.name}={identity(part.text)}", part)
    single = next(iter(parts.values())) if len(parts) == 1 else None
    return single or Node("items", text, parts=tuple(parts.values()))


def identity(text: str) -> str:
    """A string that is equal for equal numbers and for answers in one spelling. Takes the output of `spell`."""
    number = read_number(text)
    return key(text) if number is None else str(number.value)


def _split(text: str, *separators: str) -> list[str]:
    """`text` split at tokens that stand outside all brackets."""
    parts, start, depth = [], 0, 0
    for match in _TOKEN.finditer(text):
        token = match[0]
        depth += (token in _OPENING) - (token in _CLOSING)
        if token in separators and depth == 0:
            parts.append(text[start : match.start()].strip())
            start = match.end()
    return [*parts, text[start:].strip()]


def _items(text: str, everywhere: bool = False) -> list[str]:
    """`text` split at commas, semicolons, "and", "or" outside brackets; thousands separators do not split.

    `everywhere`: within brackets a comma always splits, since (1,234) is a pair.
    """
    text = _CONJUNCTION.sub(",", text)
    if not everywhere:
        text = _THOUSANDS.sub(lambda match: match[0].replace(",", "\0"), text)
    return [item.replace("\0", ",") for item in _split(text, ",", ";") if item]


def _inside(text: str) -> tuple[str, str] | None:
    """The bracket pair around the whole of `text`, as "(]", and what it holds."""
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
