"""The last step: every row into the split that its problem belongs to, in shards of a fixed size."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from smallwit.data.normalise import squeezed, text_hash
from smallwit.data.step import Context, texts
from smallwit.data.turns import TEXT_FIELDS
from smallwit.errors import UserError
from smallwit.recipe.data import ROW_COLUMNS, Write
from smallwit.rows import Row
from smallwit.storage.jsonl import json_line

_GROUP_ROWS = 2048
_PARTS = 1_000_000


class WriteStep:
    """Writes `SPLIT-00000-of-00003.jsonl` (or .parquet) files, and passes on what it has written."""

    def __init__(self, spec: Write) -> None:
        self.spec = spec

    def rows(self, rows: Iterator[Row], context: Context) -> Iterator[Row]:
        """Raises `UserError` for rows that parquet cannot hold."""
        shards: dict[str, _Shards] = {}
        origins: Counter[tuple[str, str, str]] = Counter()
        for row in rows:
            split = split_of(texts(row)[0], self.spec.validation, self.spec.test)
            if split not in shards:
                shards[split] = _Shards(context.build, split, self.spec)
            shards[split].add(_ordered(row))
            origins[row["origin"], row["license"], row.get("task") or ""] += 1
            yield row
        for each in shards.values():
            each.close()
        context.note("splits", {split: each.rows for split, each in sorted(shards.items())})
        context.note("origins", [(*about, count) for about, count in origins.most_common()])


def split_of(prompt: str, validation: float, test: float) -> str:
    """The only split in which a problem may stand. It depends on the problem's letters and digits alone, so that
    neither another seed nor another spelling moves it."""
    part = text_hash("split", squeezed(prompt)) % _PARTS / _PARTS
    if part < test:
        return "test"
    return "validation" if part < test + validation else "train"


def _ordered(row: Row) -> Row:
    """The columns that every dataset has, in their order, then the others; empty ones left out."""
    first = {name: row[name] for name in ROW_COLUMNS if row.get(name) is not None}
    return first | {name: value for name, value in row.items() if name not in first and value is not None}


class _Shards:
    """The files of one split. Their names say how many there are, which is known when the last is closed."""

    def __init__(self, folder: Path, split: str, spec: Write) -> None:
        self.folder, self.split, self.spec = folder, split, spec
        self.rows = 0
        self.files: list[Path] = []
        self.open: _JsonlFile | _ParquetFile | None = None

    def add(self, row: Row) -> None:
        if self.rows % self.spec.shard_rows == 0:
            self._next()
        assert self.open is not None
        self.open.write(row)
        self.rows += 1

    def close(self) -> None:
        if self.open is not None:
            self.open.close()
        for number, path in enumerate(self.files):
            name = f"{self.split}-{number:05d}-of-{len(self.files):05d}.{self.spec.format}"
            path.rename(self.folder / name)

    def _next(self) -> None:
        if self.open is not None:
            self.open.close()
        path = self.folder / f".{self.split}-{len(self.files):05d}"
        self.files.append(path)
        self.open = _JsonlFile(path) if self.spec.format == "jsonl" else _ParquetFile(path)


class _JsonlFile:
    def __init__(self, path: Path) -> None:
        self.file = path.open("w", encoding="utf-8")

    def write(self, row: Row) -> None:
        self.file.write(json_line(row) + "\n")

    def close(self) -> None:
        self.file.close()


class _ParquetFile:
    """The standard columns are text whether or not a row has them; others have the type of the first rows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.held: list[Row] = []
        self.writer: Any = None

    def write(self, row: Row) -> None:
        self.held.append(row)
        if len(self.held) == _GROUP_ROWS:
            self._flush()

    def close(self) -> None:
        if self.held:
            self._flush()
        self.writer.close()

    def _flush(self) -> None:
        import pyarrow  # type: ignore[import-untyped]
        import pyarrow.parquet  # type: ignore[import-untyped]

        try:
            if self.writer is None:
                self.schema, self.turn_fields = _schema(self.held), _turn_fields(self.held)
                self.writer = pyarrow.parquet.ParquetWriter(self.path, self.schema, compression="zstd")
            unknown = {name for row in self.held for name in row} - set(self.schema.names)
            if unknown:
                raise UserError(
                    f"column {min(unknown)!r} begins after the first {_GROUP_ROWS} rows; write format: jsonl"
                )
            fresh = [name for name in _turn_fields(self.held) if name not in self.turn_fields]
            if fresh:
                raise UserError(
                    f"the turns' field '{fresh[0]}' begins after the first {_GROUP_ROWS} rows; write format: jsonl"
                )
            self.writer.write_table(pyarrow.Table.from_pylist(self.held, self.schema))
        except pyarrow.ArrowException as error:
            raise UserError(
                f"parquet cannot hold these rows ({str(error).splitlines()[0]}); write format: jsonl"
            ) from error
        self.held = []


def _turn_fields(rows: list[Row]) -> list[str]:
    """The fields that the turns of these rows have. Raises `UserError` for those that parquet would change."""
    used = {name for row in rows for turn in row.get("messages") or () for name in turn}
    if "tool_calls" in used or any(row.get("tools") for row in rows):
        raise UserError("parquet gives all tool calls and tools one set of arguments; write format: jsonl")
    return [name for name in TEXT_FIELDS if name in used | {"role", "content"}]


def _schema(rows: list[Row]) -> Any:
    import pyarrow

    text = pyarrow.string()
    turns = pyarrow.list_(pyarrow.struct([(name, text) for name in _turn_fields(rows)]))
    used = {name for row in rows for name in row}
    fixed = [(name, turns if name == "messages" else text) for name in ROW_COLUMNS if name in used | {"answer", "task"}]
    others = [{name: row.get(name) for name in sorted(used - set(ROW_COLUMNS))} for row in rows]
    return pyarrow.schema(fixed + [(f.name, f.type) for f in pyarrow.Table.from_pylist(others).schema])
