"""`smallwit data validate`: every row of a file that no stage could use, with its line and the reason."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from smallwit.data.columns import shape_trouble
from smallwit.data.normalise import text_hash
from smallwit.rows import BadRow, Row, scan_rows

COMMON_CONTROL_TOKENS = re.compile(
    r"<\|[^|<>\s]{1,40}\|>|<｜[^｜<>]{1,40}｜>|</?s>|<(?:bos|eos|pad|unk|start_of_turn|end_of_turn)>|\[/?INST\]"
)
"""What control tokens of published models look like, for a file whose model is not known."""


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


def validated(path: Path) -> Iterator[Row | BadRow]:
    """The rows of a JSONL or parquet file, and what is wrong with those that are none of a dataset.

    An id that came before is wrong too. Raises `UserError` for a file that cannot be read at all.
    """
    seen: set[int] = set()

    def check(row: Row) -> str | None:
        there = {name: value for name, value in row.items() if value is not None}
        reason = shape_trouble(there)
        if reason is None and "id" in there:
            known = text_hash(there["id"])
            reason = f"the id '{there['id']}' came before" if known in seen else None
            seen.add(known)
        return reason

    return scan_rows(path, check=check)
