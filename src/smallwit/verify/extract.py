r"""Where an answer stands in a response: the last closed box, the `#### n` line, a sentence, the last number.

Every function is linear in the length of the text, whatever the text is.
"""

import re
from dataclasses import dataclass

from smallwit.verify.math_nouns import is_noun
from smallwit.verify.math_units import is_unit
from smallwit.verify.numbers import read_number

_BRACES = re.compile(r"\\(?:boxed|fbox)\s*\{|\\[\\{}]|[{}]")
_NESTED = 8
"""Of boxes in each other so many are listed: the contents of all of them would be quadratic in the length."""

_HASHES = re.compile(r"^[ \t]*####[ \t]*([-+$£€.0-9\\].{0,200})$", re.MULTILINE)
_LIST_ITEM = re.compile(r"[0-9]+[.)]\s+\S")
_MARKER = re.compile(r"answer[*_ ]{0,4}(?:\bis\b|:)[*_: ]{0,4}", re.IGNORECASE)
_LINE = 400
"""Characters of a line that are read behind a marker, and before and behind the last number."""

_TAIL = 4000
"""Characters at the end of a text among which the last number is looked for."""

# A dollar sign before a space or behind one, or before a digit, opens or closes no formula: "$18 and $20".
_MATH_SPAN = re.compile(
    r"\$\$([^$]+)\$\$|\$(?!\s)([^$\n]*[^$\s\\])\$(?![0-9])|\\\(((?:[^\\]|\\[^)])+)\\\)|\\\[((?:[^\\]|\\[^\]])+)\\\]"
)
_DECIMAL = r"(?:[1-9][0-9]{0,2}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+"
_ANY_NUMBER = re.compile(rf"(?<![0-9A-Za-z_)\]}}])-?\$?(?:{_DECIMAL})(?:/[0-9]+)?|(?:{_DECIMAL})(?:/[0-9]+)?")
_CLAUSE_END = re.compile(r"\.\s|\.$|[;!?]|<\|")
_OPTION = re.compile(r"\(?([A-J])(?:\)|[.:](?=\s))[*_]*\s")
_WORD = re.compile(r"\s*([A-Za-z]+)")
_NUMBER_WORDS = frozenset("a an half one two three four five six seven eight nine ten or and to over".split())  # noqa: SIM905
_CLAUSE_WORDS = frozenset(
    "because as since so which that when if it this we she he they i the and but by from after there".split()  # noqa: SIM905
)
_OPERATORS = frozenset("+ - − – * / = ^ × · ÷ ≈ < > ≤ ≥ ≠ ± \\times \\cdot \\div \\approx \\le \\ge \\ne \\pm".split())  # noqa: SIM905
_STARTS_OPEN = re.compile(r"[-+*/=^×·÷≈<>≤≥≠)\]}_]|\\(?:times|cdot|div|approx|le|ge|ne|pm)(?![A-Za-z])|!=")
_ENDS_OPEN = re.compile(
    r"(?:^|[^*:])[-+/=^×·÷≈<>≤≥≠(\[{_|]$|[^*]\*$|\\[A-Za-z]+$|^\\?(?:sqrt|sin|cos|tan|log|ln)(?:_\S+)?$"
)
_OPERAND = re.compile(r"(?:[0-9)\]}|!]|(?:^|[^A-Za-z])[A-Za-z]|\\(?:pi|theta))$")
_MATHEMATICAL = re.compile(r"\\[A-Za-z]|[(\[{|]|[A-Za-z](?![A-Za-z])|pi(?![A-Za-z])|sqrt")
_CHANGED = re.compile(
    r"\b(?:plus|minus|times|over|negative|not|than|least|most|about|around|approximately|roughly|nearly|almost"
    r"|divided by|multiplied by|out of|or) $",
    re.IGNORECASE,
)
"""Words before a number after which it is not the answer: "5 plus 3", "3 out of 8", "more than 5"."""

_MARKUP = "*_`\"'.,;:!? "
_ARITHMETIC = re.compile(r"[-+*/×·÷().,$£€%0-9 ]|\\(?:times|cdot|div|\$)")


@dataclass(frozen=True, slots=True)
class Extraction:
    """An answer as it stands in the text. `strict` says that it stood in the declared format."""

    answer: str
    strict: bool


def extract(response: str) -> Extraction | None:
    """Return the answer of a response by the documented chain, or `None` if there is none.

    The declared format comes first: the last closed, non-empty `\\boxed{...}`, or where there is no such box the last
    line `#### n` with a number. After it, for the lenient reading only: the last "the answer is X" or "Answer: X", then
    the last number, with the whole formula that it stands in.
    """
    if boxes := [box for box in boxed(response) if box]:
        return Extraction(boxes[-1], strict=True)
    if (line := _hash_line(response)) is not None:
        return Extraction(line, strict=True)
    if (sentence := _sentence(response)) is not None:
        return Extraction(_clause(sentence), strict=False)
    if number := last_number(response):
        return Extraction(number, strict=False)
    return None


def boxed(text: str) -> list[str]:
    r"""Return the stripped contents of closed `\boxed{...}` and `\fbox{...}`, in the order in which they close.

    A box inside a box is part of the outer one and is listed before it, unless it lies in `_NESTED` others or more; a
    box that is never closed is not listed.
    """
    spans: list[tuple[int, int]] = []
    stack: list[int | None] = []
    for match in _BRACES.finditer(text):
        token = match[0]
        if token == "{":
            stack.append(None)
        elif token == "}":
            start = stack.pop() if stack else None
            if start is not None:
                spans.append((start, match.start()))
        elif token[-1] == "{" and len(token) > 2:
            stack.append(match.end())
    return [text[start:end].strip() for start, end in _outer(spans)]


def _outer(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the spans that lie in fewer than `_NESTED` others, in their order, which is that of their ends."""
    kept = []
    around: list[int] = []
    for start, end in reversed(spans):
        while around and around[-1] > end:
            around.pop()
        if len(around) < _NESTED:
            kept.append((start, end))
        around.append(start)
    return kept[::-1]


def _hash_line(text: str) -> str | None:
    """Return the number of the last line `#### n`. A Markdown heading ("#### 2. Add them up") is not such a line."""
    lines = [line.strip() for line in _HASHES.findall(text)]
    numbers = [line for line in lines if not _LIST_ITEM.match(line) and read_number(line) is not None]
    return numbers[-1] if numbers else None


def _sentence(text: str) -> str | None:
    """Return the rest of the line behind the last marker that has one."""
    ends = [match.end() for match in _MARKER.finditer(text)]
    for end in reversed(ends[-8:]):
        if rest := text[end : end + _LINE].partition("\n")[0].strip():
            return rest
    return None


def _clause(sentence: str) -> str:
    """Return what follows "the answer is": a formula, a choice, a number, or the words up to the end of the clause."""
    sentence = sentence.lstrip("*_ ")
    sentence = re.sub(r"^\\(?:boxed|fbox)\s*\{?", "", sentence)
    if span := _MATH_SPAN.match(sentence):
        return next(group for group in span.groups() if group is not None).strip()
    if option := _OPTION.match(sentence):
        return option[1]
    number = _ANY_NUMBER.match(sentence)
    if number and _ends_there(sentence[number.end() :]):
        return number[0]
    end = _CLAUSE_END.search(sentence)
    clause = (sentence[: end.start()] if end else sentence).strip(" *_`.")
    if clause.count("$") == 1 and not clause.startswith("$"):
        clause = clause.rstrip("$")
    if "=" in clause and all(map(_is_arithmetic, clause.split("=")[:-1])):
        return _clause(clause.rpartition("=")[2].strip()) or clause
    return _only_number(clause) or clause


def _is_arithmetic(side: str) -> bool:
    return not _ARITHMETIC.sub("", side).strip()


def _ends_there(rest: str) -> bool:
    """Return whether a number ends before `rest`: `5 apples`, but not `5 elevenths`, `5 - 3`."""
    if re.match(r"[.,;!?*_`$\s]*$|[*_`]*[.,;!?][*_`]*\s+(?![0-9])", rest):
        return True
    word = _WORD.match(rest)
    if word is None or not rest[:1].isspace():
        return False
    name = word[1].lower()
    if name == "and":
        following = _WORD.match(rest, word.end())
        return following is not None and following[1].lower() not in _NUMBER_WORDS and not is_noun(following[1].lower())
    if name in _CLAUSE_WORDS:
        return True
    return (is_noun(name) or is_unit(name)) and _ends_there_after_noun(rest[word.end() :])


def _ends_there_after_noun(rest: str) -> bool:
    """Return whether no second value follows a counted word, as in `5 apples and 3 pears`, `5 feet 3`."""
    clause = _CLAUSE_END.split(rest, maxsplit=1)[0]
    return not re.search(r"[0-9]|\b(?:or|and|half|dozen)\b", clause)


def _only_number(clause: str) -> str | None:
    """Return the number of a clause that is a sentence and holds no other: "The number of marbles left is 46"."""
    numbers = list(_ANY_NUMBER.finditer(clause))
    if len(numbers) != 1 or not re.match(r"[A-Za-z]{2,}[ ,]", clause):
        return None
    (number,) = numbers
    before = clause[: number.start()]
    if not re.search(r"\s\$?$|^$", before) or _CHANGED.search(before) or re.search(r"(?i)\b(?:not|no)\b", before):
        return None
    return number[0] if _ends_there(clause[number.end() :]) else None


def last_number(text: str) -> str | None:
    """Return the last number of a text, with the whole formula around it (`$10^3$`, `(4, 5)`, `1e3`).

    A plain number comes as it is written, thousands separators included; of a calculation what follows the last equals
    sign.
    """
    tail = text[-_TAIL:]
    last = None
    for last in _ANY_NUMBER.finditer(tail):  # noqa: B007 - the last one is wanted
        pass
    if last is None:
        return None
    start, end = tail.rfind("\n", 0, last.start()) + 1, tail.find("\n", last.end())
    line = tail[max(start, last.start() - _LINE) : min(end if end >= 0 else len(tail), last.end() + _LINE)]
    at = last.start() - max(start, last.start() - _LINE)
    for span in _MATH_SPAN.finditer(line):
        if span.start() <= at < span.end():
            return next(group for group in span.groups() if group is not None).strip()
    return _formula_at(line, at, at + len(last[0]))


def _formula_at(line: str, start: int, end: int) -> str:
    """Return the words of a line that belong to one formula with the number from `start` to `end`."""
    words = [(match.start(), match.end()) for match in re.finditer(r"\S+", line)]
    first = next(index for index, (_, stop) in enumerate(words) if stop > start)
    last = next(index for index, (_, stop) in enumerate(words) if stop >= end)

    def word(index: int) -> str:
        return line[slice(*words[index])] if 0 <= index < len(words) else ""

    while True:
        text = line[words[first][0] : words[last][1]]
        more = _left_words(word(first - 2), word(first - 1), text)
        if more:
            first -= more
        elif word(last + 1) and (_balance(text) > 0 or _goes_on(text, word(last + 1), word(last + 2))):
            last += 1
        else:
            break
    rest = line[words[last][1] :]
    found = _bare(text, line[start:end])
    if _CHANGED.search(line[: words[first][0]]):
        return f"{word(first - 1)} {found}"
    if found == line[start:end] and text[-1] not in _MARKUP and _WORD.match(rest) and not _ends_there(rest):
        return found + rest[: _WORD.match(rest).end()]  # type: ignore[union-attr]  # "5 elevenths"
    return found


def _left_words(before_last: str, before: str, text: str) -> int:
    """Return how many of the words before `text` are parts of its formula."""
    if not before:
        return 0
    if _balance(text) < 0 or (_ENDS_OPEN.search(before.lstrip("*_")) and before not in _OPERATORS):
        return 1
    if before in ("x", "X") and before_last[-1:].isdigit():
        return 2  # 5 x 10^3
    if before in _OPERATORS:  # "20 - 2", and not the mark of a list or a quotation: "- 2"
        return 2 if _OPERAND.search(before_last.rstrip("*_,")) else int(before in ("<", "≤", "≥", "≠", r"\ne"))
    return int(bool(_STARTS_OPEN.match(text)) and bool(_OPERAND.search(before)))


def _goes_on(text: str, after: str, next_word: str) -> bool:
    """Return whether the formula goes on in the next word: `5 \\pi`, `5 + x`, but not "5 - as it should be"."""
    if not _OPERAND.search(text):
        return False
    if after in _OPERATORS:
        return bool(_MATHEMATICAL.match(next_word))
    return bool(_STARTS_OPEN.match(after)) or (after.startswith("\\") and after != "\\") or after in ("pi", "sqrt")


def _balance(text: str) -> int:
    """Return the number of unclosed opening brackets, or minus the number of unopened closing ones."""
    depth, lowest = 0, 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        lowest = min(lowest, depth)
    return lowest or depth


def _bare(text: str, number: str) -> str:
    r"""Return a formula without the marks of prose around it: `**18**.`, `"18"`, `(18)`, an open `\boxed{18`."""
    text = re.sub(r"\\(?:boxed|fbox)\s*\{?|^[=-]*>\s*", "", text).strip(_MARKUP)
    if _balance(text):
        text = text.strip("()[]{}" + _MARKUP)
    if "=" in text.rstrip("=") and not re.search(r"[<>!\\]=", text):
        text = text.rpartition("=")[2].strip()
    if re.fullmatch(r"\(\s*[^(),]*\s*\)", text):
        text = text[1:-1].strip()
    text = text.strip(_MARKUP.replace(".", "")) if not text.startswith(".") else text
    return text or number
