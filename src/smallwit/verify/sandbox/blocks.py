"""The blocks of code in a text: between Markdown fences, or between the lines `[BEGIN]` and `[DONE]`.

A fence closes with one of its own kind, at least as long, without a label. One that stands in a triple-quoted string
of the code closes nothing, if a later one does and what lies between is Python. The lines `[BEGIN]` and `[DONE]`
(Austin et al. 2021, arXiv 2108.07732) begin and end blocks too; a `[DONE]` alone ends the text.
"""

import re
from dataclasses import dataclass

_TRIALS = 8
"""Fences in strings that turned out to close after all, before the others are not looked at: time stays linear."""
# Possessive quantifiers: no text makes these go back over a line.
_FENCE = re.compile(r"^([ \t]*+)(`{3,}+|~{3,}+)[ \t]*+([^\s`]*+)[^\n`]*+$", re.MULTILINE)
_MARK = re.compile(r"(?:^|\A[ \t]++)\[(BEGIN|DONE)\][ \t]*+$\n?", re.MULTILINE)
PYTHON = ("python", "py", "python3")
"""The labels of a block of Python."""
# A comment, a string in triple quotes (its quotes are group 1; it may lack its end), a string of one line.
_QUOTED = re.compile(
    r"#[^\n]*+|(\"{3}|'{3})(?:[^\\]|\\.?)*?(?:\1|\Z)|\"(?:[^\"\\\n]|\\.)*+\"?|'(?:[^'\\\n]|\\.)*+'?", re.DOTALL
)


@dataclass(frozen=True)
class Block:
    """The code of a block, where its fence begins (`start`), the fence's label in small letters, whether it ends."""

    code: str
    start: int
    label: str
    closed: bool

    @property
    def declared(self) -> bool:
        """Return whether it is in the declared format: closed, and labelled Python."""
        return self.closed and self.label in PYTHON


def fenced_blocks(text: str) -> list[Block]:
    """Return the blocks between fences, in their order. A block that is never closed runs to the end of the text."""
    found: list[Block] = []
    fences = list(_FENCE.finditer(text))
    place, trials = 0, _TRIALS
    while place < len(fences):
        opened = fences[place]
        closers = (i for i in range(place + 1, len(fences)) if _closes(fences[i], opened))
        closed = first = next(closers, len(fences))
        if closed < len(fences) and trials and _in_string(text, opened.end(), fences[closed].start()):
            strings = _Strings(text, opened.end())
            closed = next((i for i in closers if not strings.hold(fences[i].start())), closed)
            if not parses(_code(text, opened, fences[closed].start())):
                closed, trials = first, trials - 1
        end = fences[closed].start() if closed < len(fences) else len(text)
        found.append(Block(_code(text, opened, end), opened.start(), opened[3].lower(), closed < len(fences)))
        place = closed + 1
    return found


def _closes(fence: re.Match[str], opened: re.Match[str]) -> bool:
    return not fence[3] and fence[2].startswith(opened[2])


def _in_string(text: str, start: int, line: int) -> bool:
    """Return whether the code from `start` on is within a triple-quoted string where a line begins."""
    *_, last = (None, *_QUOTED.finditer(text, start, line))
    return last is not None and last[1] is not None and last.end() == line


class _Strings:
    """The triple-quoted strings of the code from `start` on, asked about places that grow."""

    def __init__(self, text: str, start: int) -> None:
        self.found = (match.span() for match in _QUOTED.finditer(text, start) if match[1])
        self.span = (0, 0)

    def hold(self, place: int) -> bool:
        while self.span[1] <= place:
            span = next(self.found, None)
            if span is None:
                return False
            self.span = span
        return self.span[0] <= place


def _code(text: str, opened: re.Match[str], end: int) -> str:
    lines = text[opened.end() + 1 : end].split("\n")
    indent = opened[1]
    return "\n".join(line.removeprefix(indent) for line in lines) if indent else "\n".join(lines)


def marked_blocks(text: str) -> list[Block]:
    """Return the blocks from a line `[BEGIN]` to the next line `[DONE]`, in their order."""
    found: list[Block] = []
    begun: re.Match[str] | None = None
    for mark in _MARK.finditer(text):
        if mark[1] == "BEGIN":
            begun = mark
        elif begun is not None:
            found.append(Block(text[begun.end() : mark.start()], begun.start(), "", closed=True))
            begun = None
    if begun is not None:
        found.append(Block(text[begun.end() :], begun.start(), "", closed=False))
    return found


def before_done(text: str) -> str:
    """Return the text before the first line `[DONE]`, or all of it where there is none."""
    return next((text[: mark.start()] for mark in _MARK.finditer(text) if mark[1] == "DONE"), text)


def parses(code: str) -> bool:
    """Return whether a text is Python."""
    return error_line(code) is None


def error_line(code: str) -> int | None:
    """Return the 1-based line of the first syntax error, 1 for text that no compiler takes, `None` for Python.

    `compile` and not `ast.parse`, which lets a `return` outside of a function pass.
    """
    try:
        compile(code, "response", "exec", dont_inherit=True)
    except SyntaxError as error:
        return max(error.lineno or 1, 1)
    except (ValueError, RecursionError, MemoryError):  # NUL bytes, nesting
        return 1
    return None
