"""Step 1: rows from tasks, files, the hub and earlier stages, in one form, each with its origin and licence."""

import glob
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from smallwit.data.columns import left_behind, mapped
from smallwit.data.dataset import read_dataset
from smallwit.data.normalise import text_hash
from smallwit.data.step import Context, Pace
from smallwit.data.turns import asked_and_answered
from smallwit.errors import UserError
from smallwit.network import hub
from smallwit.recipe.data import FileRows, Gather, HubRows, RowSourceSpec, StageRows, TaskRows
from smallwit.rows import BadRow, Row, as_json, is_columnar, is_dataset_folder, numbered_rows
from smallwit.storage.paths import path_of

_BAD_SHARE = 0.001
_SHOWN = 20
Found = tuple[Row | BadRow, str | None]
"""A row, and where it stands; `None` if its id says so: one that we made of file and line is unlike all others."""


class GatherStep:
    """Reads the sources in their order, each up to its limit."""

    def __init__(self, spec: Gather) -> None:
        self.spec = spec

    def rows(self, rows: Iterator[Row], context: Context) -> Iterator[Row]:
        """Raises `UserError` for a source that cannot be read, or of which more than 0.1 % (and one) is unusable, and
        for an id that stands for two problems."""
        pace = Pace(context.resources, "rows read")
        gathered: dict[str, int] = {}
        ids, names = Ids(), Counter[str]()
        for number, source in enumerate(self.spec.sources):
            reading = _Reading(context, number, len(self.spec.sources), names)
            count = bad = 0
            for row, where in _read(source, reading):
                context.resources.stop_if_asked()
                pace.step(reading.share)
                if isinstance(row, BadRow):
                    if count == bad == 0:
                        raise UserError(f"{row} (the first row of its source); mend the file or the source's columns")
                    bad += 1
                    context.drop({"id": f"{row.path}:{row.line}"}, "unusable", row.reason)
                    continue
                ids.add(row, where)
                count += 1
                name = row["origin"]
                gathered[name] = gathered.get(name, 0) + 1
                yield row
                if count == source.limit:
                    break
            if bad > max(1, _BAD_SHARE * (count + bad)):
                what = f"steps[0].sources[{number}]: {bad:,} of {count + bad:,} rows are unusable"
                raise UserError(f"{what}; see `smallwit data validate FILE` for each")
            reading.tell()
        context.note("origins", gathered)


class _Reading:
    """How far a source has been read, and what of it was not."""

    def __init__(self, context: Context, number: int, sources: int, names: Counter[str]) -> None:
        self.context, self.number, self.sources, self.names = context, number, sources, names
        self.share = 0.0
        self.behind: Counter[str] = Counter()

    def far(self, part: float) -> None:
        """So much of this source has been read."""
        self.share = (self.number + min(part, 1.0)) / self.sources

    def name_of(self, file: str) -> str:
        """What rows of a file are named by: a file that is read again, with other columns, has other rows."""
        self.names[file] += 1
        return file if self.names[file] == 1 else f"{file}@{self.names[file]}"

    def tell(self) -> None:
        """Say which columns were left behind."""
        if self.behind:
            names = sorted(self.behind)
            self.context.note(f"columns that are not read, source {self.number}", names)
            shown = ", ".join(name[:60] for name in names[:_SHOWN])
            more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            self.context.resources.say(f"steps[0].sources[{self.number}]: columns that are not read: {shown}{more}")


class Ids:
    """The ids that came before, and what each stands for. A problem may come several times, with several answers."""

    def __init__(self) -> None:
        self.asked: dict[int, int] = {}

    def add(self, row: Row, where: str | None) -> None:
        """Raises `UserError` for an id that stands for another problem."""
        if where is not None and not self.same(row):
            what = f"{where}: the id '{row['id']:.80}' came before, and stood for another problem"
            raise UserError(f"{what}; give each problem its own, or name its column (columns: {{id: NAME}})")

    def same(self, row: Row) -> bool:
        """Whether the row's id is new, or asks what it asked before."""
        asked = asked_and_answered(row["messages"])[0] if row.get("messages") else row["prompt"]
        problem = text_hash(json.dumps([asked, row.get("tools")], sort_keys=True))
        return self.asked.setdefault(text_hash(row["id"]), problem) == problem


def _read(source: RowSourceSpec, reading: "_Reading") -> Iterator[Found]:
    found: Iterator[Found]
    match source:
        case TaskRows():
            found = _task_rows(source, reading)
        case StageRows():
            folder = reading.context.resources.inputs[source.from_]
            found = ((row, f"stage {source.from_}") for row in read_dataset(folder, far=reading.far))
        case FileRows():
            found = _files(source, reading)
        case HubRows():
            found = _hub(source, reading)
    for row, where in found:
        yield row if isinstance(row, BadRow) else _provenance(row, source), where


def _provenance(row: Row, source: RowSourceSpec) -> Row:
    """What the source declares of its rows; a row that says it itself is right."""
    for name in ("origin", "license"):
        row[name] = row.get(name) or getattr(source, name)
        if not row[name]:
            what = f"row {row['id']} has no {name}, and its source declares none"
            raise UserError(f"{what}; give the source '{name}' (license: unknown, if nobody knows)")
    return row


def _made(
    theirs: Row, source: FileRows | HubRows, reading: "_Reading", path: Path, line: int, called: str, columnar: bool
) -> Found:
    """A row of a file or of the hub in our columns, which its task can judge; or why it is none."""
    reading.behind.update(left_behind(theirs, source))
    row = mapped(theirs, source, path, line, called=called, columnar=columnar)
    own_id = theirs.get(source.columns.get("id", "id")) is not None
    if not isinstance(row, BadRow):
        task = reading.context.resources.tasks.get(str(row.get("task")))
        trouble = task.gold_trouble(row["answer"]) if task is not None and "answer" in row else None
        row = row if trouble is None else BadRow(path, line, f"the answer is none of task {row['task']}: {trouble}")
    return row, f"{path}:{line}" if own_id else None


def _task_rows(source: TaskRows, reading: "_Reading") -> Iterator[Found]:
    task = reading.context.resources.tasks[source.task]
    problems = task.problems(source.split)
    total = source.limit or (len(problems) if isinstance(problems, Sequence) else None)
    for number, problem in enumerate(problems):
        if total is not None:
            reading.far(number / total)
        row = {"id": problem.id, "prompt": problem.prompt, "answer": problem.gold, "task": task.name}
        if problem.solution is not None:
            row["completion"] = problem.solution
        yield (
            row | {"origin": getattr(task, "origin", ""), "license": getattr(task, "license", "")},
            f"task {task.name}",
        )


def _files(source: FileRows, reading: "_Reading") -> Iterator[Found]:
    paths = files_of(source, reading.context.resources.base)
    for number, path in enumerate(paths):

        def far_in_all(share: float, number: int = number) -> None:
            reading.far((number + share) / len(paths))

        called = reading.name_of(os.path.relpath(path, reading.context.resources.base))
        columnar = is_columnar(path)
        for line, row in numbered_rows(path, far=far_in_all):
            if isinstance(row, BadRow):
                yield row, None
            else:
                yield _made(row, source, reading, path, line, called, columnar)


def files_of(source: FileRows, base: Path) -> list[Path]:
    """The files that a source names, in the order of their names; a folder of `save_to_disk` is one.

    Raises `UserError` when there is none.
    """
    named = base / path_of(source.path)
    # A name with brackets may be a name, and not a pattern.
    found = [named] if named.exists() else [Path(path) for path in sorted(glob.glob(str(named), recursive=True))]
    paths = [path for path in found if path.is_file() or is_dataset_folder(path)]
    if not paths and found and found[0].is_dir():
        what = f"{found[0]}: is a folder, and none that datasets' save_to_disk has written"
        raise UserError(f"{what}; name its files, as {source.path.rstrip('/')}/*.jsonl, or read it by kind: hub")
    if not paths:
        raise UserError(f"{named}: there is no such file; check the path (it is relative to the recipe)")
    return paths


def _hub(source: HubRows, reading: "_Reading") -> Iterator[Found]:
    """Streams the dataset at one commit, which is noted. The licence is the hub card's if the recipe declares none."""
    import datasets
    import httpx2
    import pyarrow  # type: ignore[import-untyped]
    from huggingface_hub import HfApi

    context, path = reading.context, Path(source.repository)
    revision, license = source.revision, source.license
    called = reading.name_of(path.name)
    here = path.is_dir()
    trouble = None if here else hub.unreachable()
    try:
        if not here and trouble is None:
            about = HfApi().dataset_info(source.repository, revision=source.revision)
            revision = about.sha
            license = license or (about.card_data.get("license") if about.card_data else None)
            context.note(f"commit of {source.repository}", revision)
        stream = datasets.load_dataset(
            source.repository, source.config, split=source.split, revision=revision, streaming=True
        )
        total = (stream.info.splits or {}).get(source.split)
        count = total.num_examples if total is not None else None
        for index, row in enumerate(stream, 1):
            if source.limit or count:
                reading.far(index / (source.limit or count or 1))
            try:
                theirs = _as_json(row, source)
            except (TypeError, UnicodeDecodeError) as error:
                yield BadRow(path, index, f"a column that is read is no JSON data ({hub.reason(error)})"), None
                continue
            made, where = _made(theirs, source, reading, path, index, called, True)
            if not isinstance(made, BadRow):
                made.setdefault("origin", source.origin or source.repository)
                if license:
                    made.setdefault("license", license if isinstance(license, str) else " or ".join(license))
            yield made, where
    except (OSError, ValueError, httpx2.HTTPError, datasets.exceptions.DatasetsError, pyarrow.ArrowException) as error:
        what = f"{source.repository}: cannot be read from the Hugging Face hub ({hub.reason(error, trouble)})"
        raise UserError(f"{what}; connect to it, or name a file") from error


def _as_json(theirs: Mapping[str, Any], source: HubRows) -> Row:
    """A row whose columns that are read are JSON data."""
    read = theirs.keys() - left_behind(dict(theirs), source)
    return {name: as_json(value) if name in read else value for name, value in theirs.items()}
