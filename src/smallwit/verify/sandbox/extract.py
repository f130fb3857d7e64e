"""The program in a model's whole text.

Where it is looked for, first hit wins:

1. A text that is Python as it stands and defines the entry point, or continues `prompt` as a body (4), whatever its
   strings hold.
2. Blocks (`sandbox.blocks`): the last one that defines the entry point; when none does, the first, read as a body (4).
3. Bare code: the text defines the entry point at the start of a line.
4. A bare body: `prompt` defines the entry point, and prompt and text together parse.

The declared format, for the strict reading: a closed fenced block whose language is python (python, py, python3), or
bare code, or a bare body, that parses as it stands and is the whole program. The lenient reading also takes a block
with another label or none, or between `[BEGIN]` and `[DONE]`, gives a block the imports and helpers that it lacks and
other blocks define (`sandbox.missing`), and makes repairs: prose before bare code is dropped, code that does not parse
is cut before the line of its syntax error (a few times, so that the time stays linear), and a body whose first line
lost its indentation gets it back.

What `prompt` holds before the entry point (imports, helpers) runs before a block or bare code, in both readings.

Parsing text from a stranger can cost time and stack: in the judge this runs inside the candidate's own process,
before anything of the candidate runs.
"""

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from .blocks import before_done, error_line, fenced_blocks, marked_blocks, parses
from .missing import missing_statements

MAX_CHARACTERS = 64 << 10
_REPAIRS = 8
# A function or class (group 1) or a name that is assigned to (group 2), at the start of a line.
_DEFINITION = re.compile(
    r"^(?:(?:async[ \t]++)?+(?:def|class)[ \t]++(\w++)|(\w++)[ \t]*+(?::[^=\n]*+)?+=(?!=))", re.MULTILINE
)
_CODE_LINE = re.compile(r"^(?:import |from \S+ import |def |async def |class |@\w)", re.MULTILINE)


@dataclass(frozen=True)
class Program:
    """A program as it was read: `preamble` runs first, then `source`. `answer` is the text it was read from."""

    preamble: str
    source: str
    answer: str
    strict: bool


def extract_program(prompt: str, entry_point: str, response: str) -> Program | None:
    """Return the program in `response`, or `None` when there is none. The caller has checked `MAX_CHARACTERS`."""
    response = response.replace("\r\n", "\n")
    prompt = prompt.replace("\r\n", "\n")
    found = fenced_blocks(response)
    if found and (program := _as_it_stands(prompt, entry_point, response)):
        return program
    found = found or marked_blocks(response)
    if not found:
        text = before_done(response)
        return _bare(prompt, entry_point, text, strict=text == response)
    place = next((i for i in reversed(range(len(found))) if _defines(found[i].code, entry_point)), None)
    if place is not None:
        others = [block.code for i, block in enumerate(found) if i != place]
        return _whole(prompt, entry_point, found[place].code, strict=found[place].declared, others=others)
    body = _body(prompt, entry_point, found[0].code, strict=False)
    # Base models write the body, then a stray fence: the text before it is read as if it were all.
    return body or _bare(prompt, entry_point, response[: found[0].start], strict=False)


def _as_it_stands(prompt: str, entry_point: str, text: str) -> Program | None:
    """Bare code, or a bare body, that needs no repair."""
    if _defines(text, entry_point):
        return _whole(prompt, entry_point, text, strict=True) if parses(text) else None
    start = _opening(prompt)
    if _defines(prompt, entry_point) and _is_indented(text) and parses(start + text):
        return Program("", start + text, text, strict=True)
    return None


def _bare(prompt: str, entry_point: str, text: str, strict: bool = True) -> Program | None:
    if not _defines(text, entry_point):
        return _body(prompt, entry_point, text, strict)
    if not parses(text):
        start = _CODE_LINE.search(text)
        return _whole(prompt, entry_point, text[start.start() :] if start else text, strict=False)
    return _whole(prompt, entry_point, text, strict)


def _whole(prompt: str, entry_point: str, code: str, strict: bool, others: Sequence[str] = ()) -> Program:
    """Return a program that defines the entry point; `others` are blocks that may hold what it lacks."""
    repaired = _repair(code)
    if repaired is None or not _defines(repaired, entry_point):
        repaired = code  # it will fail to compile: a wrong program, not a missing one
    preamble = _preamble(prompt, entry_point)
    lacked = missing_statements(repaired, preamble, others) if others else ""
    return Program(preamble + lacked, repaired, lacked + repaired, strict and repaired == code and not lacked)


def _body(prompt: str, entry_point: str, text: str, strict: bool) -> Program | None:
    if not _defines(prompt, entry_point) or not text.strip():
        return None
    start, indented = _opening(prompt), _is_indented(text)
    attempts = [text] if indented else ["    " + text.lstrip(), textwrap.indent(text, "    ")]
    best = ""
    for body in attempts:
        kept = (_repair(start + body) or "")[len(start) :]
        if kept == body:
            return Program("", start + body, body, strict and indented)
        best = max(best, kept, key=len)
    return Program("", start + best, best, strict=False) if best.strip() else None


def _opening(prompt: str) -> str:
    return prompt if prompt.endswith("\n") else prompt + "\n"


def _is_indented(text: str) -> bool:
    return text.lstrip("\n")[:1] in (" ", "\t")


def _preamble(prompt: str, entry_point: str) -> str:
    """Return the prompt's imports and helpers: what stands before the entry point, where that is Python."""
    start = next((found.start() for found in _DEFINITION.finditer(prompt) if found[1] == entry_point), 0)
    before = prompt[:start]
    return before if before and parses(before) else ""


def _defines(code: str, entry_point: str) -> bool:
    return any(entry_point in found.groups() for found in _DEFINITION.finditer(code))


def _repair(code: str) -> str | None:
    """Return the longest beginning of `code` that parses, by cutting before the line of each error, or `None`."""
    for _ in range(_REPAIRS):
        error = error_line(code)
        if error is None:
            return code
        lines = code.split("\n")
        keep = min(error - 1, len(lines) - 1)
        if keep <= 0:
            return None
        code = "\n".join(lines[:keep]) + "\n"
    return None
