"""Read columnar files: parquet, and the Arrow files of a folder that datasets' `save_to_disk` has written.

Types that JSON lacks are converted: decimals and times become text, and bytes too if they are UTF-8.
"""

import datetime
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

from smallwit.errors import UserError
from smallwit.rows.row import short
from smallwit.rows.text import Found

Far = Callable[[float], None]
STATE = "state.json"
SPLITS = "dataset_dict.json"
_BATCH = 1024


def parquet(path: Path, far: Far) -> Iterator[Found]:
    """Yield the rows of a parquet file. Raises `UserError` for a damaged file."""
    import pyarrow.parquet  # type: ignore[import-untyped]

    with _whole(path, "a parquet file"), pyarrow.parquet.ParquetFile(path) as file:
        total, number = file.metadata.num_rows, 0
        for batch in file.iter_batches(_BATCH):
            for value, reason in _rows_of(path, batch):
                number += 1
                far(number / max(total, number))
                yield number, value, reason


def saved_dataset(folder: Path, far: Far) -> Iterator[Found]:
    """Yield the rows of a folder of `save_to_disk`. Raises `UserError` if it is damaged or has several splits."""
    import pyarrow

    paths = _shards(folder)
    number = 0
    for place, path in enumerate(paths):
        with _whole(path, "an Arrow file"), pyarrow.OSFile(str(path)) as file, pyarrow.ipc.open_stream(file) as stream:
            for batch in stream:
                for value, reason in _rows_of(path, batch):
                    number += 1
                    far((place + file.tell() / max(file.size(), 1)) / len(paths))
                    yield number, value, reason


def _shards(folder: Path) -> list[Path]:
    if (folder / SPLITS).is_file():
        splits = ", ".join(sorted(path.parent.name for path in folder.glob(f"*/{STATE}")))
        raise UserError(f"{folder}: holds the splits {splits or '(none)'}; name one of their folders")
    try:
        named = [part["filename"] for part in json.loads((folder / STATE).read_text(encoding="utf-8"))["_data_files"]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{folder}: its {STATE} is none of `save_to_disk` ({short(error)}); save it again") from error
    there = {path.name for path in folder.iterdir() if path.is_file()}
    for name in named:
        if not isinstance(name, str) or name not in there:
            raise UserError(f"{folder}: its file {name!r:.80} is not there; copy the whole folder")
    return [folder / name for name in named]


@contextmanager
def _whole(path: Path, what: str) -> Iterator[None]:
    """Raise `UserError` for a damaged file: Arrow reports damage by many kinds of errors."""
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, ValueError, OverflowError, OSError, MemoryError, KeyError, IndexError) as error:
        raise UserError(f"{path}: not {what} that can be read whole ({short(error)}); write it again") from error


def _rows_of(path: Path, batch: Any) -> Iterator[tuple[Any, str | None]]:
    """Yield the rows of a record batch, each with the reason if it cannot be used."""
    names = batch.schema.names
    if len(set(names)) < len(names):
        raise UserError(f"{path}: two columns have one name; give each its own")
    # This checks offsets, lengths and UTF-8: damage would otherwise crash the process.
    batch.validate(full=True)
    foreign = [field.name for field in batch.schema if not _is_json(field.type)]
    for row in batch.to_pylist():
        reason = None
        for name in foreign:
            try:
                row[name] = as_json(row[name])
            except UnicodeDecodeError:
                reason = f"column {name!r} holds bytes that are no text; leave the column out of the file"
            except TypeError as error:
                reason = f"column {name!r} {error}; leave the column out of the file"
        yield row, reason


def _is_json(kind: Any) -> bool:
    """Return whether the values of an Arrow type are JSON data without conversion."""
    from pyarrow import types

    if types.is_list(kind) or types.is_large_list(kind):
        return _is_json(kind.value_type)
    if types.is_struct(kind):
        return all(_is_json(kind.field(place).type) for place in range(kind.num_fields))
    tests = (types.is_string, types.is_large_string, types.is_integer, types.is_floating, types.is_boolean)
    return types.is_null(kind) or any(test(kind) for test in tests)


def as_json(value: Any) -> Any:
    """Return a value as JSON data. Raises `TypeError` for other types, `UnicodeDecodeError` for bytes without text."""
    match value:
        case None | bool() | int() | float() | str():
            return value
        case Decimal():
            return format(value, "f")
        case bytes():
            return value.decode()
        case datetime.date() | datetime.time():
            return value.isoformat()
        case datetime.timedelta():
            return str(value)
        case dict():
            return {str(name): as_json(part) for name, part in value.items()}
        case list() | tuple():
            return [as_json(part) for part in value]
        case _:
            raise TypeError(f"holds values of the type {type(value).__name__}, which are no JSON data")
