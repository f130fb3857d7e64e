"""The base of the sources of rows that the step `gather` reads, and what they share while it reads them."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, PositiveInt

from smallwit.data.columns import Column, map_columns, unread_columns
from smallwit.data.context import StepContext
from smallwit.data.normalise import text_hash
from smallwit.data.turns import split_answer
from smallwit.errors import UserError
from smallwit.recipe.section import PartOrder, Section
from smallwit.rows import BadRow, Row
from smallwit.suggestions import hint

if TYPE_CHECKING:
    from smallwit.recipe.check import Check
    from smallwit.recipe.stage import Place

_SHOWN_COLUMNS = 20
LocatedRow = tuple[Row | BadRow, str | None]
"""A row and its location for messages. The location is `None` where smallwit made the id from file and line."""


class RowSource(Section):
    """A source of rows: its settings, its checks and its reader.

    A subclass with a field `kind: Literal["..."]`, in a module of `smallwit.data.sources`, is a source that recipes can
    name.
    """

    kinds_in: ClassVar[tuple[str, ...]] = ("smallwit.data.sources",)
    limit: PositiveInt | None = Field(default=None, description="rows of the source, at most; all if absent")
    order: PartOrder = "drawn"
    origin: str | None = Field(
        default=None, min_length=1, description="where the rows come from, for rows that do not say it themselves"
    )
    license: str | None = Field(
        default=None, min_length=1, description="licence of the rows that do not say it themselves", examples=["MIT"]
    )

    @property
    def stages(self) -> Sequence[str]:
        """Return the names of the earlier stages that the source reads."""
        return ()

    @property
    def tasks(self) -> Sequence[str]:
        """Return the names of the tasks that the source names."""
        return ()

    @property
    def draws(self) -> bool:
        """Return whether `limit` draws among all rows that `read` yields."""
        return self.order == "drawn" and self.limit is not None

    @property
    def task_split(self) -> tuple[str, str] | None:
        """Return the task and the split of it that the source reads."""
        return None

    def check_references(self, check: "Check", place: "Place") -> None:
        """Check the stages, tasks and files that the source names. Raises `UserError` for one that does not exist."""
        for name in self.stages:
            check.rows_before("rows from", name, *place, "from")
        for name in self.tasks:
            if name not in check.recipe.tasks:
                raise check.refuse(f"unknown task '{name}'; {hint(name, check.recipe.tasks)}", *place, "task")

    def files(self, base: Path) -> list[Path]:
        """Return the local files that the source reads. Raises `UserError` when there is none."""
        return []

    def commits(self) -> dict[str, str | None]:
        """Return the commits of the hub's datasets that the source reads, by repository."""
        return {}

    def read(self, reader: "SourceReader") -> Iterator[LocatedRow]:
        """Yield the rows with their locations; a row that cannot be used is a `BadRow`."""
        raise NotImplementedError


class MappedRows(RowSource):
    """A source of rows that were written for other programs, with column names of their own."""

    columns: dict[Column, str] = Field(
        default_factory=dict,
        description="names of the source's columns, by smallwit's names for them",
        examples=[{"prompt": "question", "completion": "answer"}],
    )
    style: Literal["plain", "gsm8k"] = Field(
        default="plain", description="gsm8k: calculator marks are removed, and '#### n' becomes a boxed answer"
    )
    instruction: str | None = Field(default=None, description="a line that is added to every prompt")
    task: str | None = Field(default=None, description="task of the recipe whose verifier judges these rows")

    @property
    def tasks(self) -> Sequence[str]:
        """Return the task of the rows."""
        return () if self.task is None else (self.task,)

    def located(
        self, source_row: Row, reader: "SourceReader", path: Path, line: int, *, file_name: str, columnar: bool
    ) -> LocatedRow:
        """Return a row of a file or of the hub in smallwit's columns, checked by its task; or the reason against it."""
        reader.unread.update(unread_columns(source_row, self))
        row = map_columns(source_row, self, path, line, file_name=file_name, columnar=columnar)
        own_id = source_row.get(self.columns.get("id", "id")) is not None
        if not isinstance(row, BadRow):
            task = reader.context.resources.tasks.get(str(row.get("task")))
            error = task.gold_trouble(row["answer"]) if task is not None and "answer" in row else None
            row = (
                row
                if error is None
                else BadRow(path, line, f"task {row['task']} cannot compare with this answer: {error}")
            )
        return row, f"{path}:{line}" if own_id else None


class SourceReader:
    """The state of reading one source: its progress, the names of its files, and its unread columns."""

    def __init__(self, context: StepContext, number: int, sources: int, names: Counter[str]) -> None:
        self.context, self.number, self.sources, self.names = context, number, sources, names
        self.share = 0.0
        self.unread: Counter[str] = Counter()

    def report(self, part: float) -> None:
        """Set the progress: `part` (0..1) of this source has been read."""
        self.share = (self.number + min(part, 1.0)) / self.sources

    def name_of(self, file: str) -> str:
        """Return a unique name for a file, for the ids of its rows: a file that is read twice gets two names."""
        self.names[file] += 1
        return file if self.names[file] == 1 else f"{file}@{self.names[file]}"

    def report_unread(self) -> None:
        """Report the columns that were not read."""
        if self.unread:
            names = sorted(self.unread)
            self.context.note(f"columns that are not read, source {self.number}", names)
            shown = ", ".join(name[:60] for name in names[:_SHOWN_COLUMNS])
            more = f" and {len(names) - _SHOWN_COLUMNS} more" if len(names) > _SHOWN_COLUMNS else ""
            self.context.resources.say(f"steps[0].sources[{self.number}]: columns that are not read: {shown}{more}")


class RowIds:
    """The ids that were seen, with the problem of each. Rows with several answers to one problem share its id."""

    def __init__(self) -> None:
        self.problems: dict[int, int] = {}

    def add(self, row: Row, location: str | None) -> None:
        """Record the id of a row. Raises `UserError` for an id that was used for another problem."""
        if location is not None and not self.consistent(row):
            what = f"{location}: the id '{row['id']:.80}' was used before for another problem"
            raise UserError(f"{what}; give each problem its own, or name its column (columns: {{id: NAME}})")

    def consistent(self, row: Row) -> bool:
        """Record the id of a row. Return whether it is new, or was used for the same problem."""
        prompt = split_answer(row["messages"])[0] if row.get("messages") else row["prompt"]
        problem = text_hash(json.dumps([prompt, row.get("tools")], sort_keys=True))
        return self.problems.setdefault(text_hash(row["id"]), problem) == problem
