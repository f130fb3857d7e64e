"""Step 1: rows from tasks, files, the hub and earlier stages, in one form, each with its origin and licence."""

import csv
import glob
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from smallwit import hub
from smallwit.data.columns import mapped
from smallwit.data.dataset import read_dataset
from smallwit.data.step import Context, Pace, Resources
from smallwit.errors import UserError
from smallwit.given import path_of
from smallwit.recipe.data import FileRows, Gather, HubRows, RowSourceSpec, StageRows, TaskRows
from smallwit.rows import BadRow, Row, is_parquet, scan_rows

_BAD_SHARE = 0.001
Far = Callable[[float], None]


class GatherStep:
    """Reads the sources in their order, each up to its limit."""

    def __init__(self, spec: Gather) -> None:
        self.spec = spec

    def rows(self, rows: Iterator[Row], context: Context) -> Iterator[Row]:
        """Raises `UserError` for a source that cannot be read, or of which more than 0.1 % (and one) is unusable."""
        pace = Pace(context.resources, "rows read")
        gathered: dict[str, int] = {}
        for number, source in enumerate(self.spec.sources):
            share = [0.0]

            def far(part: float, number: int = number, share: list[float] = share) -> None:
                share[0] = (number + min(part, 1.0)) / len(self.spec.sources)

            count = bad = 0
            for row in _read(source, context, far):
                context.resources.stop_if_asked()
                pace.step(share[0])
                if isinstance(row, BadRow):
                    if count == bad == 0:
                        raise UserError(f"{row} (the first row of its source); mend the file or the source's columns")
                    bad += 1
                    context.drop({"id": f"{row.path}:{row.line}"}, "unusable", row.reason)
                    continue
                count += 1
                name = row["origin"]
                gathered[name] = gathered.get(name, 0) + 1
                yield row
                if count == source.limit:
                    break
            if bad > max(1, _BAD_SHARE * (count + bad)):
                what = f"steps[0].sources[{number}]: {bad:,} of {count + bad:,} rows are unusable"
                raise UserError(f"{what}; see `smallwit data validate FILE` for each")
        context.note("origins", gathered)


def _read(source: RowSourceSpec, context: Context, far: Far) -> Iterator[Row | BadRow]:
    found: Iterator[Row | BadRow]
    match source:
        case TaskRows():
            found = _task_rows(source, context.resources, far)
        case StageRows():
            found = read_dataset(context.resources.inputs[source.from_], far=far)
        case FileRows():
            found = _files(source, context.resources.base, far)
        case HubRows():
            found = _hub(source, context, far)
    for row in found:
        yield row if isinstance(row, BadRow) else _provenance(row, source)


def _provenance(row: Row, source: RowSourceSpec) -> Row:
    """What the source declares of its rows; a row that says it itself is right."""
    for name in ("origin", "license"):
        row[name] = row.get(name) or getattr(source, name)
        if not row[name]:
            what = f"row {row['id']} has no {name}, and its source declares none"
            raise UserError(f"{what}; give the source '{name}' (license: unknown, if nobody knows)")
    return row


def _task_rows(source: TaskRows, resources: Resources, far: Far) -> Iterator[Row]:
    task = resources.tasks[source.task]
    problems = task.problems(source.split)
    total = source.limit or (len(problems) if isinstance(problems, Sequence) else None)
    for number, problem in enumerate(problems):
        if total is not None:
            far(number / total)
        row = {"id": problem.id, "prompt": problem.prompt, "answer": problem.gold, "task": task.name}
        if problem.solution is not None:
            row["completion"] = problem.solution
        yield row | {"origin": getattr(task, "origin", ""), "license": getattr(task, "license", "")}


def _files(source: FileRows, base: Path, far: Far) -> Iterator[Row | BadRow]:
    paths = files_of(source, base)
    for number, path in enumerate(paths):

        def far_in_all(share: float, number: int = number) -> None:
            far((number + share) / len(paths))

        columnar = is_parquet(path)
        for index, row in enumerate(_FORMATS.get(path.suffix, scan_rows)(path, far=far_in_all), 1):
            yield row if isinstance(row, BadRow) else mapped(row, source, path, index, columnar=columnar)


def files_of(source: FileRows, base: Path) -> list[Path]:
    """The files that a source names, in the order of their names. Raises `UserError` when there is none."""
    pattern = str(base / path_of(source.path))
    paths = [Path(path) for path in sorted(glob.glob(pattern, recursive=True)) if Path(path).is_file()]
    if not paths:
        raise UserError(f"{pattern}: there is no such file; check the path (it is relative to the recipe)")
    return paths


def _json_list(path: Path, far: Far) -> Iterator[Row | BadRow]:
    """A JSON list of rows, read at once; a `.json` file of JSON lines is read as such."""
    text = path.read_text(encoding="utf-8-sig")
    if not text.lstrip().startswith("["):
        yield from scan_rows(path, far=far)
        return
    try:
        rows = json.loads(text)
    except ValueError as error:
        raise UserError(f"{path}: is no JSON ({error}); mend it, or write JSON lines") from error
    for number, row in enumerate(rows, 1):
        far(number / len(rows))
        yield row if isinstance(row, dict) else BadRow(path, number, "a row must be an object with named columns")


def _csv(path: Path, far: Far) -> Iterator[Row | BadRow]:
    """Comma-separated rows under a line of names; `BadRow.line` counts rows, as a row may have several lines."""
    size = max(path.stat().st_size, 1)
    read = 0
    with path.open(encoding="utf-8-sig", newline="") as file:
        for number, row in enumerate(csv.DictReader(file, strict=True), 1):
            read += sum(len(value or "") + 1 for value in row.values() if not isinstance(value, list))
            far(read / size)
            if None in row or None in row.values():
                yield BadRow(path, number, "has another number of columns than the first line")
            else:
                yield dict(row)


_FORMATS: dict[str, Callable[..., Iterator[Row | BadRow]]] = {".json": _json_list, ".csv": _csv}


def _hub(source: HubRows, context: Context, far: Far) -> Iterator[Row | BadRow]:
    """Streams the dataset at one commit, which is noted. The licence is the hub card's if the recipe declares none."""
    import datasets
    import httpx2
    from huggingface_hub import HfApi

    revision, license = source.revision, source.license
    here = Path(source.repository).is_dir()
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
                far(index / (source.limit or count or 1))
            made = mapped(dict(row), source, Path(source.repository), index, columnar=True)
            if not isinstance(made, BadRow):
                made.setdefault("origin", source.origin or source.repository)
                if license:
                    made.setdefault("license", license if isinstance(license, str) else " or ".join(license))
            yield made
    except (OSError, ValueError, httpx2.HTTPError, datasets.exceptions.DatasetsError) as error:
        what = f"{source.repository}: cannot be read from the Hugging Face hub ({hub.reason(error, trouble)})"
        raise UserError(f"{what}; connect to it, or name a file") from error
