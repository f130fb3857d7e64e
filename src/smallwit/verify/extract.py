r"""Where an answer stands in a response: the last closed box, the `#### n` line, a sentence, the last number.

Every function is linear in the length of the text, whatever the text is.
"""

import re
from dataclasses import dataclass

from smallwit.verify.numbers import read_number

_BRACES = re.compile(r"\\(?:boxed|fbox)\s*\{|\\[\\{}]|[{}]")
_HASHES = re.compile(r"^[ \t]*####[ \t]*([-+$£€.0-9\\].{0,200})$", re.MULTILINE)
_LIST_ITEM = re.compile(r"[0-9]+[.)]\s+\S")
_SENTENCE = re.compile(r"answer[*_ ]{0,4}(?:\bis\b|:)[*_: ]{0,4}([^\n]{1,400})", re.IGNORECASE)
_MATH_SPAN = re.compile(r"\$\$?([^$]+)\$\$?|\\\((.+?)\\\)|\\\[(.+?)\\\]")
_DECIMAL = r"(?:[1-9][0-9]{0,2}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+"
_ANY_NUMBER = re.compile(rf"(?<![0-9A-Za-z_)\]}}])-?\$?(?:{_DECIMAL})(?:/[0-9]+)?|(?:{_DECIMAL})(?:/[0-9]+)?")
_ANOTHER = re.compile(r"\s+(?:or|and|to)\s+[-+$]?[0-9]")
_CLAUSE_END = re.compile(r"\.\s|\.$|[;!?]|<\|")


@dataclass(frozen=True, slots=True)
class Extraction:
    """An answer as it stands in the text. `strict` says that it stood in the declared format."""

    answer: str
    strict: bool


def extract(response: str) -> Extraction | None:
    """The answer of a response by the documented chain, or `None` if there is none.

    The declared format comes first: the last closed, non-empty `\\boxed{...}`, or where there is no such box the last
    line `#### n` with a number. After it, for the lenient reading only: the last "the answer is X" or "Answer: X", then
    the last number.
    """
    if boxes := [box for box in boxed(response) if box]:
        return Extraction(boxes[-1], strict=True)
    if (line := _hash_line(response)) is not None:
        return Extraction(line, strict=True)
    if sentences := _SENTENCE.findall(response):
        return Extraction(_clause(sentences[-1]), strict=False)
    if number := last_number(response):
        return Extraction(number, strict=False)
    return None


def boxed(text: str) -> list[str]:
    r"""The stripped contents of all closed `\boxed{...}` and `\fbox{...}`, in the order in which they close.

    A box inside a box is part of the outer one and is listed before it; a box that is never closed is not listed.
    """
    found: list[str] = []
    stack: list[int | None] = []
    for match in _BRACES.finditer(text):
        token = match[0]
        if token == "{":
            stack.append(None)
        elif token == "}":
            start = stack.pop() if stack else None
            if start is not None:
                found.append(text[start : match.start()].strip())
        elif token[-1] == "{" and len(token) > 2:
            stack.append(match.end())
    return found


def _hash_line(text: str) -> str | None:
    """The number of the last line `#### n`. A Markdown heading ("#### 2. Add them up") is not such a line."""
    lines = [line.strip() for line in _HASHES.findall(text)]
    numbers = [line for line in lines if not _LIST_ITEM.match(line) and read_number(line) is not None]
    return numbers[-1] if numbers else None


def last_number(text: str) -> str | None:
    """The last number of a text as it is written, thousands separators included; a sign only where it is no minus."""
    tail = text[-4000:]
    numbers = _ANY_NUMBER.findall(tail)
    return numbers[-1] if numbers else None


def _clause(sentence: str) -> str:
    """What "the answer is" is followed by: a formula, or the number or the words up to the end of the clause."""
    sentence = sentence.strip().removeprefix("\\boxed{")
    span = _MATH_SPAN.match(sentence)
    if span:
        return next(group for group in span.groups() if group is not None).strip()
    number = _ANY_NUMBER.match(sentence)
    rest = sentence[number.end() :] if number else ""
    if number and re.match(r"[\s.,;!*]|$", rest) and not _ANOTHER.match(rest):
        return number[0]
    end = _CLAUSE_END.search(sentence)
    return (sentence[: end.start()] if end else sentence).strip(" *_`.$")
