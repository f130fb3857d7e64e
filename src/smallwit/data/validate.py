"""`smallwit data validate`: the rows of a file that no stage can use, with line and reason."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from smallwit.data.columns import map_columns, unread_columns
from smallwit.data.source import MappedRows, RowIds
from smallwit.rows import BadRow, Row, is_columnar, numbered_rows

COMMON_CONTROL_TOKENS = re.compile(
    r"<\|[^|<>\s]{1,40}\|>|<｜[^｜<>]{1,40}｜>|</?s>|<(?:bos|eos|pad|unk|start_of_turn|end_of_turn)>|\[/?INST\]"
)
"""The control tokens of published models, for a file whose model is not known."""
SHOWN = 20
"""Lines of a kind that are printed; the others are counted."""


@dataclass
class Validation:
    """The findings in a file: rows, bad rows, rows that spell control tokens, and columns that no stage reads."""

    rows: int = 0
    bad: list[BadRow] = field(default_factory=list)
    bad_rows: int = 0
    spelling: list[tuple[int, str]] = field(default_factory=list)
    spelling_rows: int = 0
    unread: Counter[str] = field(default_factory=Counter)


def control_token_in(row: Row, pattern: re.Pattern[str] = COMMON_CONTROL_TOKENS) -> str | None:
    """Return the first control token that the prompt, completion or messages of a row spell, if any."""
    for text in _texts([row.get(name) for name in ("messages", "prompt", "completion")]):
        match = pattern.search(text)
        if match:
            return match[0]
    return None


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part)
    elif isinstance(value, dict):
        yield from _texts([part for name, part in value.items() if name != "role"])


def validate(path: Path, pattern: re.Pattern[str] = COMMON_CONTROL_TOKENS) -> Validation:
    """Return the findings in a file, read as `gather` reads it without a mapping; the first `SHOWN` have their lines.

    A row whose id was used for another problem is bad too. Raises `UserError` for a file that cannot be read at all.
    """
    found, ids = Validation(), RowIds()
    plain = MappedRows()
    columnar = is_columnar(path)
    for line, source_row in numbered_rows(path):
        found.rows += 1
        row = source_row
        if not isinstance(source_row, BadRow):
            found.unread.update(unread_columns(source_row, plain))
            row = map_columns(source_row, plain, path, line, columnar=columnar)
        if not isinstance(row, BadRow) and not ids.consistent(row):
            row = BadRow(path, line, f"the id '{row['id']:.80}' was used before for another problem")
        if isinstance(row, BadRow):
            found.bad_rows += 1
            found.bad += [row] if len(found.bad) < SHOWN else []
        elif (token := control_token_in(row, pattern)) is not None:
            found.spelling_rows += 1
            found.spelling += [(line, token)] if len(found.spelling) < SHOWN else []
    return found
