"""`smallwit data validate`: every row of a file that no stage could use, with its line and the reason."""

from collections.abc import Iterator
from pathlib import Path

from smallwit.data.columns import shape_trouble
from smallwit.data.normalise import text_hash
from smallwit.rows import BadRow, Row, scan_rows


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
