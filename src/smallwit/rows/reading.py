"""Detect the kind of a data file, and read its rows."""

import gzip
import logging
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import IO, cast

from smallwit.errors import UserError
from smallwit.rows.columnar import SPLITS, STATE, parquet, saved_dataset
from smallwit.rows.row import BadRow, Row, unusable
from smallwit.rows.text import Found, json_lines, json_list, table

_GZIP = b"\x1f\x8b"
_PARQUET = b"PAR1"
_UTF8_MARK = b"\xef\xbb\xbf"
_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_FOREIGN = {
    b"\xff\xfe": ("is UTF-16", "convert it to UTF-8"),
    b"\xfe\xff": ("is UTF-16", "convert it to UTF-8"),
    b"\x28\xb5\x2f\xfd": ("is compressed by zstd", "decompress it, or compress it by gzip"),
    b"\xfd7zXZ\0": ("is compressed by xz", "decompress it, or compress it by gzip"),
    b"BZh": ("is compressed by bzip2", "decompress it, or compress it by gzip"),
    b"PK\x03\x04": ("is a zip archive", "unpack it"),
    b"ARROW1": ("is an Arrow file", "write parquet or JSON lines"),
    b"\xff\xff\xff\xff": ("is an Arrow stream", "name the folder that save_to_disk has made"),
    b"version https://git-lfs": ("is a pointer of Git LFS and not the data", "fetch it by git lfs pull"),
}
"""The first bytes of unsupported files, their kind, and the remedy."""
_SHOWN = 20
_log = logging.getLogger(__name__)


def read_rows(
    path: Path | str, max_bad_fraction: float = 0.001, columns: Mapping[str, type] | None = None
) -> tuple[list[Row], list[BadRow]]:
    """Return the rows of a file, in order, and the bad rows.

    `columns` maps the columns that every row must have to their Python types. The first 20 bad rows are logged as
    warnings; all are returned. One bad row is tolerated, because a killed run leaves one cut-off line. More are
    tolerated up to `max_bad_fraction` of the file. `max_bad_fraction=0` tolerates none.

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
        raise UserError(f"{bad[0]}{more}; fix or remove the row{'s' if len(bad) > 1 else ''}")
    if bad:
        _log.warning("%s: %d of %d rows left out", path, len(bad), total)
    return rows, bad


def scan_rows(
    path: Path | str,
    columns: Mapping[str, type] | None = None,
    *,
    far: Callable[[float], None] = lambda share: None,
    check: Callable[[Row], str | None] = lambda row: None,
) -> Iterator[Row | BadRow]:
    """Yield the rows of a file, each a dict or a `BadRow`, with one line or parquet batch in memory at a time.

    The first bytes of the file give its kind; a CSV or TSV table has it in its name (`.csv`, `.tsv`, also `.gz`).
    `far` is called before each row with the share of the file that was read. `check` may return why a row that has all
    columns cannot be used. Raises `UserError` if the file as a whole cannot be read.
    """
    for _, row in numbered_rows(path, columns, far=far, check=check):
        yield row


def numbered_rows(
    path: Path | str,
    columns: Mapping[str, type] | None = None,
    *,
    far: Callable[[float], None] = lambda share: None,
    check: Callable[[Row], str | None] = lambda row: None,
) -> Iterator[tuple[int, Row | BadRow]]:
    """Yield the rows as `scan_rows` does, each with its first line, or with its number if the file has no lines."""
    path = Path(path)
    for line, row, reason in _found(path, far):
        reason = reason or unusable(row, columns) or check(row)
        yield line, row if reason is None else BadRow(path, line, reason)


def is_columnar(path: Path) -> bool:
    """Return whether all objects of a column have the same keys in this file, as in parquet.

    Raises `UserError` for a file that cannot be read.
    """
    if path.is_dir():
        return True
    try:
        with path.open("rb") as file:
            return file.read(len(_PARQUET)) == _PARQUET
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error}); check the path") from error


def is_dataset_folder(path: Path) -> bool:
    """Return whether datasets' `save_to_disk` has written this folder."""
    return (path / STATE).is_file() or (path / SPLITS).is_file()


def _found(path: Path, far: Callable[[float], None]) -> Iterator[Found]:
    if path.is_dir():
        if not is_dataset_folder(path):
            raise UserError(
                f"{path}: cannot be read: a folder, and none of `save_to_disk`; name its files (DIR/*.jsonl)"
            )
        yield from saved_dataset(path, far)
        return
    try:
        with path.open("rb") as file:
            start = file.read(32)
            file.seek(0)
            if start.startswith(_PARQUET):
                yield from parquet(path, far)
                return
            size = max(path.stat().st_size, 1)
            with gzip.open(file) if start[:2] == _GZIP else nullcontext(file) as text:
                for found in _text_rows(path, cast(IO[bytes], text)):
                    far(min(file.tell() / size, 1.0))
                    yield found
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; check the path") from error
    except (OSError, EOFError, zlib.error) as error:
        # A compressed file that is cut off has lost an unknown number of rows, so that no fraction is known.
        raise UserError(f"{path}: cannot be read ({error}); download or write it again") from error


def _text_rows(path: Path, file: IO[bytes]) -> Iterator[Found]:
    start = file.read(4096)
    file.seek(0)
    for mark, (what, remedy) in _FOREIGN.items():
        if start.startswith(mark):
            raise UserError(f"{path}: the file {what}; {remedy}")
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() != ".gz"]
    delimiter = _DELIMITERS.get(suffixes[-1]) if suffixes else None
    if delimiter is not None:
        return table(path, file, delimiter)
    if start.removeprefix(_UTF8_MARK).lstrip()[:1] == b"[":
        return json_list(path, file)
    return json_lines(path, file)
