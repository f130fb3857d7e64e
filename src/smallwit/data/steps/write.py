"""The step `write`: rows go to the split of their problem, in shards of a fixed size."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveInt, model_validator

from smallwit.data.columns import ROW_COLUMNS
from smallwit.data.context import StepContext
from smallwit.data.normalise import squeezed, text_hash
from smallwit.data.row_access import prompt_and_completion
from smallwit.data.step import DataStep
from smallwit.data.turns import TEXT_FIELDS
from smallwit.errors import UserError
from smallwit.rows import Row
from smallwit.storage.jsonl import json_line

_GROUP_ROWS = 2048
_PARTS = 1_000_000


class Write(DataStep):
    """Split the rows by the hash of their problem, and write shards: `SPLIT-00000-of-00003.jsonl` (or .parquet)."""

    kind: Literal["write"] = Field(description="write the dataset; the last step")
    format: Literal["jsonl", "parquet"] = Field(default="jsonl", description="file format of the shards")
    shard_rows: PositiveInt = Field(default=100_000, description="rows of a shard, at most")
    validation: float = Field(default=0.0, ge=0, lt=1, description="share of the problems in the validation split")
    test: float = Field(default=0.0, ge=0, lt=1, description="share of the problems in the test split")

    @model_validator(mode="after")
    def _some_training(self) -> "Write":
        if self.validation + self.test >= 1:
            raise ValueError(f"validation {self.validation:g} and test {self.test:g} leave nothing to train on")
        return self

    def rows(self, rows: Iterator[Row], context: StepContext) -> Iterator[Row]:
        """Yield the rows that were written. Raises `UserError` for rows that parquet cannot hold."""
        shards: dict[str, _Shards] = {}
        origins: Counter[tuple[str, str, str]] = Counter()
        for row in rows:
            split = split_of(prompt_and_completion(row)[0], self.validation, self.test)
            if split not in shards:
                shards[split] = _Shards(context.build, split, self)
            shards[split].add(_ordered(row))
            origins[row["origin"], row["license"], row.get("task") or ""] += 1
            yield row
        for each in shards.values():
            each.close()
        context.note("splits", {split: each.rows for split, each in sorted(shards.items())})
        context.note("origins", [(*about, count) for about, count in origins.most_common()])


def split_of(prompt: str, validation: float, test: float) -> str:
    """Return the split of a problem. It depends on the prompt's letters and digits alone, so that neither another seed
    nor another spacing moves a problem. `validation` and `test` are shares (0..1)."""
    part = text_hash("split", squeezed(prompt)) % _PARTS / _PARTS
    if part < test:
        return "test"
    return "validation" if part < test + validation else "train"


def _ordered(row: Row) -> Row:
    """Return the row with the standard columns first, in their order, and without empty columns."""
    first = {name: row[name] for name in ROW_COLUMNS if row.get(name) is not None}
    return first | {name: value for name, value in row.items() if name not in first and value is not None}


class _Shards:
    """The files of one split. They get their names when the last one is closed and their number is known."""

    def __init__(self, folder: Path, split: str, settings: Write) -> None:
        self.folder, self.split, self.settings = folder, split, settings
        self.rows = 0
        self.files: list[Path] = []
        self.open: _JsonlFile | _ParquetFile | None = None

    def add(self, row: Row) -> None:
        if self.rows % self.settings.shard_rows == 0:
            self._next()
        assert self.open is not None
        self.open.write(row)
        self.rows += 1

    def close(self) -> None:
        if self.open is not None:
            self.open.close()
        for number, path in enumerate(self.files):
            name = f"{self.split}-{number:05d}-of-{len(self.files):05d}.{self.settings.format}"
            path.rename(self.folder / name)

    def _next(self) -> None:
        if self.open is not None:
            self.open.close()
        path = self.folder / f".{self.split}-{len(self.files):05d}"
        self.files.append(path)
        self.open = _JsonlFile(path) if self.settings.format == "jsonl" else _ParquetFile(path)


class _JsonlFile:
    def __init__(self, path: Path) -> None:
        self.file = path.open("w", encoding="utf-8")

    def write(self, row: Row) -> None:
        self.file.write(json_line(row) + "\n")

    def close(self) -> None:
        self.file.close()


class _ParquetFile:
    """A parquet file. The standard columns are text; other columns have the type that they have in the first rows."""

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
    """Return the fields of the rows' turns. Raises `UserError` for tools, which parquet would change."""
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
