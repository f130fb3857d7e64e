"""The step `gather`: rows from tasks, files, the hub and earlier stages, in one form, with origin and licence."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from smallwit.data.context import RateReporter, StepContext
from smallwit.data.source import LocatedRow, RowIds, RowSource, SourceReader
from smallwit.data.step import DataStep
from smallwit.errors import UserError
from smallwit.recipe.section import ByKind
from smallwit.rows import BadRow, Row
from smallwit.storage.artifacts import file_hash, folder_hash
from smallwit.tasks.base import Task
from smallwit.tasks.draw import sample

if TYPE_CHECKING:
    from smallwit.recipe.check import Check
    from smallwit.recipe.stage import Place

_BAD_SHARE = 0.001


class Gather(DataStep):
    """Read the sources one after the other."""

    kind: Literal["gather"] = Field(description="read rows from sources")
    sources: list[Annotated[RowSource, ByKind()]] = Field(
        min_length=1, description="where the rows come from, read in this order"
    )

    @property
    def stages(self) -> Sequence[str]:
        """Return the stages that the sources read."""
        return tuple(dict.fromkeys(name for source in self.sources for name in source.stages))

    def task_splits(self) -> "Iterator[tuple[str, str, Place]]":
        """Yield the splits of tasks that the sources read."""
        for number, source in enumerate(self.sources):
            if source.task_split is not None:
                yield *source.task_split, ("sources", number)

    def tasks_of_rows(self, known: Sequence[str]) -> Sequence[str]:
        """Return the tasks that the sources name; all of them where an earlier stage made the rows."""
        if self.stages:
            return known
        return tuple(dict.fromkeys(name for source in self.sources for name in source.tasks))

    def check_references(self, check: "Check", place: "Place") -> None:
        """Check the tasks, stages and files of the sources. Raises `UserError` for one that does not exist."""
        for number, source in enumerate(self.sources):
            source.check_references(check, (*place, "sources", number))

    def smoke(self, problems: int, max_new_tokens: int) -> "Gather":
        """Return the step with the first `problems` rows of each source."""
        few = [source.model_copy(update={"limit": problems, "order": "given"}) for source in self.sources]
        return self.model_copy(update={"sources": few})

    def content(self, tasks: Mapping[str, Task], base: Path, data_dir: Path | None) -> dict[str, Any]:
        """Return hashes of files and commits of datasets. Raises `UserError` for those that do not exist."""
        files = [path for source in self.sources for path in source.files(base)]
        hashes: dict[str, Any] = {str(path): folder_hash(path) if path.is_dir() else file_hash(path) for path in files}
        return hashes | {name: commit for source in self.sources for name, commit in source.commits().items()}

    def rows(self, rows: Iterator[Row], context: StepContext) -> Iterator[Row]:
        """Yield the rows of the sources, of each a part if it has a limit.

        Raises `UserError` for a source that cannot be read, or of which more than 0.1 % (and more than one row) is
        unusable, and for an id that is used for two problems.
        """
        rate = RateReporter(context.resources, "rows read")
        origins: dict[str, int] = {}
        ids, names = RowIds(), Counter[str]()
        for number, source in enumerate(self.sources):
            reader = SourceReader(context, number, len(self.sources), names)
            usable = _usable(source, reader, rate)
            if source.draws and source.limit is not None:
                usable = iter(sample(usable, source.limit, lambda pair: pair[0]["id"]))
            for row, location in usable:
                ids.add(row, location)
                origins[row["origin"]] = origins.get(row["origin"], 0) + 1
                yield row
            reader.report_unread()
        context.note("origins", origins)


def _usable(source: RowSource, reader: SourceReader, rate: RateReporter) -> Iterator[tuple[Row, str | None]]:
    """Yield the usable rows of a source, up to its limit unless it draws them, and drop the others."""
    context = reader.context
    count = bad = 0
    for row, location in _with_provenance(source, reader):
        context.resources.stop_if_asked()
        rate.step(reader.share)
        if isinstance(row, BadRow):
            if count == bad == 0:
                raise UserError(f"{row} (the first row of its source); correct the file or the source's columns")
            bad += 1
            context.drop({"id": f"{row.path}:{row.line}"}, "unusable", row.reason)
            continue
        count += 1
        yield row, location
        if count == source.limit and not source.draws:
            break
    if bad > max(1, _BAD_SHARE * (count + bad)):
        what = f"steps[0].sources[{reader.number}]: {bad:,} of {count + bad:,} rows are unusable"
        raise UserError(f"{what}; see `smallwit data validate FILE` for each")


def _with_provenance(source: RowSource, reader: SourceReader) -> Iterator[LocatedRow]:
    """Yield the rows with origin and licence: the row's own, or else the source's."""
    for row, location in source.read(reader):
        if not isinstance(row, BadRow):
            for name in ("origin", "license"):
                row[name] = row.get(name) or getattr(source, name)
                if not row[name]:
                    what = f"row {row['id']} has no {name}, and its source declares none"
                    raise UserError(f"{what}; give the source '{name}' (license: unknown, if nobody knows)")
        yield row, location
