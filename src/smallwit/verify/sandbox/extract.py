"""The program in a model's whole text.

Where it is looked for, first hit wins:

1. Fenced code. Of several blocks the last one that defines the entry point; when none does, the first, read as
   a body (3). A fence that is never closed runs to the end of the text.
2. Bare code: the text defines the entry point at the start of a line.
3. A bare body: `prompt` defines the entry point, and prompt and text together parse.

The declared format, for the strict reading: a closed block whose language is python (python, py, python3), or bare
code, or a bare body, that parses as it stands. The lenient reading also takes a block with another label or none, and
repairs: prose before bare code is dropped, code that does not parse is cut before the line of its syntax error (a few
times, so that the time stays linear), and a body whose first line lost its indentation gets it back.

What `prompt` holds before the entry point (imports, helpers) runs before fenced or bare code, in both readings.

Parsing text from a stranger can cost time and stack: in the judge this runs inside the candidate's own process,
before anything of the candidate runs.
"""

import re
import textwrap
from dataclasses import dataclass

MAX_CHARACTERS = 64 << 10
_REPAIRS = 8
# Possessive quantifiers: no text makes these go back over a line.
_FENCE = re.compile(r"^([ \t]*+)(`{3,}+|~{3,}+)[ \t]*+([^\s`]*+)[^\n`]*+$", re.MULTILINE)
_PYTHON = ("python", "py", "python3")
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


@dataclass(frozen=True)
class _Block:
    code: str
    python: bool
    closed: bool


def extract_program(prompt: str, entry_point: str, response: str) -> Program | None:
    """The program in `response`, or `None` when there is none. The caller has checked `MAX_CHARACTERS`."""
    response = response.replace("\r\n", "\n")
    prompt = prompt.replace("\r\n", "\n")
    blocks = _blocks(response)
    if not blocks:
        return _bare(prompt, entry_point, response)
    block = next((block for block in reversed(blocks) if _defines(block.code, entry_point)), None)
    if block is not None:
        return _whole(prompt, entry_point, block.code, strict=block.python and block.closed)
    return _body(prompt, entry_point, blocks[0].code, strict=False) or _before_fence(prompt, entry_point, response)


def _before_fence(prompt: str, entry_point: str, response: str) -> Program | None:
    """Base models write the body, then a stray fence: the text before it is read as if it were all."""
    fence = _FENCE.search(response)
    return _bare(prompt, entry_point, response[: fence.start()] if fence else response, strict=False)


def _bare(prompt: str, entry_point: str, text: str, strict: bool = True) -> Program | None:
    if not _defines(text, entry_point):
        return _body(prompt, entry_point, text, strict)
    if not _parses(text):
        start = _CODE_LINE.search(text)
        return _whole(prompt, entry_point, text[start.start() :] if start else text, strict=False)
    return _whole(prompt, entry_point, text, strict)


def _whole(prompt: str, entry_point: str, code: str, strict: bool) -> Program:
    repaired = _repair(code)
    if repaired is None or not _defines(repaired, entry_point):
        repaired = code  # it will fail to compile: a wrong program, not a missing one
    return Program(_preamble(prompt, entry_point), repaired, repaired, strict and repaired == code)


def _body(prompt: str, entry_point: str, text: str, strict: bool) -> Program | None:
    if not _defines(prompt, entry_point) or not text.strip():
        return None
    start = prompt if prompt.endswith("\n") else prompt + "\n"
    indented = text.lstrip("\n")[:1] in (" ", "\t")
    attempts = [text] if indented else ["    " + text.lstrip(), textwrap.indent(text, "    ")]
    best = ""
    for body in attempts:
        kept = (_repair(start + body) or "")[len(start) :]
        if kept == body:
            return Program("", start + body, body, strict and indented)
        best = max(best, kept, key=len)
    return Program("", start + best, best, strict=False) if best.strip() else None


def _preamble(prompt: str, entry_point: str) -> str:
    """The prompt's imports and helpers: what stands before the entry point, where that is Python."""
    start = next((found.start() for found in _DEFINITION.finditer(prompt) if found[1] == entry_point), 0)
    before = prompt[:start]
    return before if before and _parses(before) else ""


def _defines(code: str, entry_point: str) -> bool:
    return any(entry_point in found.groups() for found in _DEFINITION.finditer(code))


def _blocks(text: str) -> list[_Block]:
    """The fenced blocks. A fence closes with one of its own kind, at least as long, without a label."""
    blocks: list[_Block] = []
    opened: re.Match[str] | None = None
    for fence in _FENCE.finditer(text):
        if opened is None:
            opened = fence
        elif not fence[3] and fence[2].startswith(opened[2]):
            blocks.append(_block(text, opened, fence.start(), closed=True))
            opened = None
    if opened is not None:
        blocks.append(_block(text, opened, len(text), closed=False))
    return blocks


def _block(text: str, opened: re.Match[str], end: int, closed: bool) -> _Block:
    lines = text[opened.end() + 1 : end].split("\n")
    indent = opened[1]
    code = "\n".join(line.removeprefix(indent) for line in lines) if indent else "\n".join(lines)
    return _Block(code, opened[3].lower() in _PYTHON, closed)


def _repair(code: str) -> str | None:
    """The longest beginning of `code` that parses, by cutting before the line of each error, or `None`."""
    for _ in range(_REPAIRS):
        error = _error_line(code)
        if error is None:
            return code
        lines = code.split("\n")
        keep = min(error - 1, len(lines) - 1)
        if keep <= 0:
            return None
        code = "\n".join(lines[:keep]) + "\n"
    return None


def _parses(code: str) -> bool:
    return _error_line(code) is None


def _error_line(code: str) -> int | None:
    """The 1-based line of the first syntax error, 1 for text that no compiler takes, `None` for Python.

    `compile` and not `ast.parse`, which lets a `return` outside of a function pass.
    """
    try:
        compile(code, "response", "exec", dont_inherit=True)
    except SyntaxError as error:
        return max(error.lineno or 1, 1)
    except (ValueError, RecursionError, MemoryError):  # NUL bytes, nesting
        return 1
    return None
