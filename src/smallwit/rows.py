"""Rows of a data file: JSONL (plain or gzip) or parquet.

What cannot be read is named by file and line and counted, never dropped in silence.
"""

import gzip
import json
import logging
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smallwit.errors import UserError

Row = dict[str, Any]

_GZIP = b"\x1f\x8b"
_PARQUET = b"PAR1"
_UTF8_MARK = b"\xef\xbb\xbf"
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_SHOWN = 20
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that could not be used. `line` counts from 1 (in parquet: rows); `str()` gives `file:line: reason`."""

    path: Path
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.reason}"


def read_rows(
    path: Path | str, max_bad_fraction: float = 0.001, columns: Mapping[str, type] | None = None
) -> tuple[list[Row], list[BadRow]]:
    """The rows of a file, in order, and the rows that could not be used.

    `columns` names columns that every row must have, with their Python types. Each bad row is logged as a warning
    (the first 20; all are returned). One bad row is always borne, as a run that was killed leaves one cut-off line;
    more than that are borne up to `max_bad_fraction` of the file. `max_bad_fraction=0` bears none.

    Raises `UserError` beyond that, and for a file that is missing, empty, or compressed and cut off.
    """
    path = Path(path)
    rows: list[Row] = []
    bad: list[BadRow] = []
    for row in scan_rows(path, columns):
        if isinstance(row, BadRow):
            bad.append(row)
            if len(bad) <= _SHOWN:
                _log.warning("%s", row)
        else:
            rows.append(row)
    total = len(rows) + len(bad)
    if not total:
        raise UserError(f"{path}: the file holds no rows; check that it was downloaded or written completely")
    allowed = max(1, int(max_bad_fraction * total)) if max_bad_fraction > 0 else 0
    if len(bad) > allowed or not rows:
        more = f" ({len(bad)} of {total} rows are bad)" if len(bad) > 1 else ""
        raise UserError(f"{bad[0]}{more}; mend or remove the row{'s' if len(bad) > 1 else ''}")
    if bad:
        _log.warning("%s: %d of %d rows left out", path, len(bad), total)
    return rows, bad


def is_parquet(path: Path) -> bool:
    """Whether a file's first bytes are parquet's. Raises `UserError` for a file that cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(len(_PARQUET)) == _PARQUET
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error}); check the path") from error


def scan_rows(
    path: Path | str,
    columns: Mapping[str, type] | None = None,
    *,
    far: Callable[[float], None] = lambda share: None,
    check: Callable[[Row], str | None] = lambda row: None,
) -> Iterator[Row | BadRow]:
    """The rows of a file one after the other, each a dict or a `BadRow`; one line or parquet batch is held at a time.

    The kind is told by the file's first bytes, not by its name. `far` is told, before each row, which share of the
    file has been read; `check` may say why a row that has its columns cannot be used. Raises `UserError` where the
    whole file cannot be read.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            start = file.read(4)
            file.seek(0)
            size = max(path.stat().st_size, 1)
            if start[:2] in _UTF16_MARKS:
                raise UserError(f"{path}: the file is UTF-16; convert it to UTF-8")
            if start == _PARQUET:
                yield from _parquet_rows(path, columns, far, check)
                return
            with gzip.open(file) if start[:2] == _GZIP else nullcontext(file) as lines:
                for row in _json_rows(path, lines, columns, check):
                    far(file.tell() / size)
                    yield row
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; check the path") from error
    except (OSError, EOFError, zlib.error) as error:
        # A compressed file that ends early has lost an unknown number of rows: there is no fraction to bear.
        raise UserError(f"{path}: cannot be read ({error}); download or write it again") from error


def _json_rows(
    path: Path, file: Iterable[bytes], columns: Mapping[str, type] | None, check: Callable[[Row], str | None]
) -> Iterator[Row | BadRow]:
    for number, line in enumerate(file, 1):
        if number == 1:
            line = line.removeprefix(_UTF8_MARK)
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode())
        except UnicodeDecodeError as error:
            yield BadRow(path, number, f"not UTF-8 text (byte {error.start + 1} of the line)")
            continue
        except (ValueError, RecursionError) as error:
            cut = "; the line has no end, so the file was cut off while it was written" if line[-1:] != b"\n" else ""
            yield BadRow(path, number, f"not JSON ({_short(error)}){cut}")
            continue
        reason = _unusable(row, columns)
        if reason is None and b"\\ud" in line.lower() and not _encodable(row):
            reason = "a text holds half of a surrogate pair, which is no character"
        reason = reason or check(row)
        yield row if reason is None else BadRow(path, number, reason)


def _parquet_rows(
    path: Path,
    columns: Mapping[str, type] | None,
    far: Callable[[float], None],
    check: Callable[[Row], str | None],
) -> Iterator[Row | BadRow]:
    import pyarrow  # type: ignore[import-untyped]
    import pyarrow.parquet  # type: ignore[import-untyped]

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as table:
            for batch in table.iter_batches(1024):
                for row in batch.to_pylist():
                    number += 1
                    far(number / table.metadata.num_rows)
                    reason = _unusable(row, columns) or check(row)
                    yield row if reason is None else BadRow(path, number, reason)
    except pyarrow.ArrowException as error:
        raise UserError(f"{path}: not a whole parquet file ({_short(error)}); download or write it again") from error


def _unusable(row: Any, columns: Mapping[str, type] | None) -> str | None:
    """Why a row cannot be used, or `None`."""
    if not isinstance(row, dict):
        return f"a row must be an object with named columns, this is {_kind(row)}"
    for name, kind in (columns or {}).items():
        if name not in row:
            return f"column '{name}' is missing; the row has {', '.join(map(repr, row)) or 'none'}"
        if not isinstance(row[name], kind) or (kind is int and isinstance(row[name], bool)):
            return f"column '{name}' must be {_KINDS[kind]}, this is {_kind(row[name])}"
    return None


_KINDS: dict[type, str] = {str: "text", int: "a whole number", float: "a number", list: "a list", dict: "an object"}


def _kind(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return _KINDS.get(type(value), type(value).__name__)


def _encodable(row: Row) -> bool:
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _short(error: BaseException) -> str:
    return str(error).splitlines()[0][:120]
