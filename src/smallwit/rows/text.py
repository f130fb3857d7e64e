"""Read text files: JSON lines, a JSON list, and tables with a delimiter."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from smallwit.errors import UserError
from smallwit.rows.deep import DEEPEST, too_deep
from smallwit.rows.row import half_character, short

Found = tuple[int, Any, str | None]
"""The line of a row, the row, and the reason if it cannot be used."""

LONGEST = 1 << 28
"""Maximum bytes of a line: a small compressed file can hold a line larger than the memory."""
_UTF8_MARK = b"\xef\xbb\xbf"
_TOO_DEEP = f"is nested more than {DEEPEST} levels deep"


def json_lines(path: Path, file: IO[bytes]) -> Iterator[Found]:
    """Yield the value of every line that is not empty."""
    number = 0
    while line := file.readline(LONGEST):
        number += 1
        if number == 1:
            line = line.removeprefix(_UTF8_MARK)
        if len(line) == LONGEST and not line.endswith(b"\n"):
            raise UserError(f"{path}:{number}: the line has more than {LONGEST:,} bytes; write a row a line")
        if not line.strip():
            continue
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            yield number, None, f"not UTF-8 text (byte {error.start + 1} of the line)"
            continue
        value, reason = _decoded(text)
        if reason is not None and line[-1:] != b"\n":
            reason += "; the line has no end, so the file was cut off while it was written"
        if reason is None and "\\ud" in text.lower():
            reason = half_character(value)
        yield number, value, reason


def _decoded(text: str) -> tuple[Any, str | None]:
    if too_deep(text):
        return None, f"not JSON that can be read (it {_TOO_DEEP})"
    try:
        return json.loads(text), None
    except (ValueError, RecursionError) as error:
        return None, f"not JSON ({short(error)})"


def json_list(path: Path, file: IO[bytes]) -> Iterator[Found]:
    """Yield the items of a file that is one JSON list, which is read at once. Raises `UserError` for invalid JSON."""
    try:
        text = _whole(path, file).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text (byte {error.start + 1}); convert it to UTF-8") from error
    values, reason = _decoded(text)
    if reason is not None:
        raise UserError(f"{path}: {reason}; fix it, or write JSON lines")
    suspicious = "\\ud" in text.lower()
    for number, value in enumerate(values, 1):
        yield number, value, half_character(value) if suspicious else None


def _whole(path: Path, file: IO[bytes]) -> bytes:
    found = file.read(LONGEST * 8 + 1)
    if len(found) > LONGEST * 8:
        raise UserError(f"{path}: a JSON list of more than {LONGEST * 8:,} bytes is not read at once; write JSON lines")
    return found


def table(path: Path, file: IO[bytes], delimiter: str) -> Iterator[Found]:
    """Yield the rows of a table with a header. Raises `UserError` for repeated column names and broken quotes."""
    # A field may be a whole document; Python's own bound is 131,072 characters.
    csv.field_size_limit(LONGEST)
    text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
    reader = csv.reader(_bounded(path, text), strict=True, delimiter=delimiter)
    names: list[str] | None = None
    line = 1
    try:
        for values in reader:
            if names is None:
                names = _names(path, values)
            elif len(values) == len(names):
                yield line, dict(zip(names, values, strict=True)), None
            elif values:
                yield line, None, f"has {len(values)} columns, and the first line has {len(names)}"
            line = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{path}:{line}: not a table of columns ({short(error)}); fix it") from error
    except UnicodeDecodeError as error:
        # Text is decoded ahead of the rows, so that only the last row read gives a place.
        raise UserError(f"{path}:{line}: at or behind this line is no UTF-8 text; convert it to UTF-8") from error
    finally:
        text.detach()  # the file is its opener's to close


def _bounded(path: Path, text: io.TextIOWrapper) -> Iterator[str]:
    number = 0
    while line := text.readline(LONGEST):
        number += 1
        if len(line) == LONGEST:
            raise UserError(f"{path}:{number}: the line has more than {LONGEST:,} characters; write a row a line")
        yield line


def _names(path: Path, values: list[str]) -> list[str]:
    twice = [name for number, name in enumerate(values) if name in values[:number]]
    if twice:
        raise UserError(f"{path}:1: two columns have the name '{twice[0][:60]}'; give each its own")
    return values
