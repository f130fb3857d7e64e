"""Check rows, and describe why one cannot be used."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Row = dict[str, Any]

_KINDS: dict[type, str] = {str: "text", int: "a whole number", float: "a number", list: "a list", dict: "an object"}


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be used; `str()` gives `file:line: reason`.

    `line` counts from 1. It counts rows if the file has no lines (a JSON list, parquet).
    """

    path: Path
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.reason}"


def unusable(row: Any, columns: Mapping[str, type] | None) -> str | None:
    """Return why a row does not have these columns with these types, or `None`."""
    if not isinstance(row, dict):
        return f"a row must be an object with named columns, this is {kind_of(row)}"
    for name, kind in (columns or {}).items():
        if name not in row:
            return f"column {name!r} is missing; the row has {columns_of(row)}"
        if not isinstance(row[name], kind) or (kind is int and isinstance(row[name], bool)):
            return f"column {name!r} must be {_KINDS[kind]}, this is {kind_of(row[name])}"
    return None


def columns_of(row: Mapping[str, Any]) -> str:
    """Return the names of a row's columns, for a message."""
    names = list(map(repr, row))
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return ", ".join(name[:60] for name in names[:20]) + more or "none"


def kind_of(value: Any) -> str:
    """Return the JSON type of a value, for a message."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return _KINDS.get(type(value), type(value).__name__)


def half_character(row: Any) -> str | None:
    """Return a reason if a text holds half of a surrogate pair, which cannot be encoded; else `None`."""
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return "a text holds half of a surrogate pair, which is no character"
    return None


def short(error: BaseException) -> str:
    """Return the first line of an error's message."""
    lines = str(error).splitlines()
    return lines[0][:120] if lines else type(error).__name__
