"""Reading of a dataset: a folder of shards that a stage has made."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from smallwit.data.columns import canonical, row_error
from smallwit.data.row_access import problem_of
from smallwit.data.turns import normal_tools, normal_turn
from smallwit.errors import UserError
from smallwit.rows import BadRow, Row, numbered_rows
from smallwit.storage.artifacts import MANIFEST, BrokenArtifact, read_manifest
from smallwit.tasks.base import SPLITS, Problem

_SHARD = re.compile(rf"({'|'.join(SPLITS)})-(\d+)-of-(\d+)\.(jsonl|parquet)")


def shards_of(folder: Path, split: str | None = None) -> list[Path]:
    """Return the shards of a split, or of all splits, in their order. Raises `UserError` when one is missing."""
    found = [(match, path) for path in sorted(folder.iterdir()) if (match := _SHARD.fullmatch(path.name))]
    counts = {match[1]: int(match[3]) for match, _ in found}
    for name, count in counts.items():
        there = sum(match[1] == name for match, _ in found)
        if there != count:
            raise UserError(f"{folder}: split {name} has {there} of its {count} files; copy the whole folder")
    return [path for match, path in found if split in (None, match[1])]


def read_dataset(
    folder: Path, split: str | None = "train", on_progress: Callable[[float], None] = lambda share: None
) -> Iterator[Row]:
    """Yield the rows of a split, or of all splits (`None`), in order. `on_progress(share)` gets the progress (0..1).

    Raises `UserError` for a folder without rows, for a row that cannot be read, and for a file that differs from its
    manifest.
    """
    if (folder / MANIFEST).is_file():
        try:
            read_manifest(folder, check_content=True)
        except BrokenArtifact as error:
            raise UserError(f"{error}; build the dataset again, or copy the whole folder again") from error
    paths = shards_of(folder, split)
    if not paths:
        raise UserError(f"{folder}: holds no {split or 'dataset'} files; name a folder that a dataset stage has made")
    for number, path in enumerate(paths):

        def report(share: float, number: int = number) -> None:
            on_progress((number + share) / len(paths))

        for line, row in numbered_rows(path, far=report):
            if isinstance(row, BadRow):
                raise UserError(str(row))
            there = {name: value for name, value in row.items() if value is not None}
            there.setdefault("id", f"{path.name}:{line}")
            reason = row_error(there)
            if reason is not None:
                raise UserError(f"{path}:{line}: {reason}; name a folder that a dataset stage has made")
            yield canonical(there) if isinstance(there.get("prompt"), list) else _with_normal_turns(there)


def _with_normal_turns(row: Row) -> Row:
    """Return the row with turns and tools in their canonical form."""
    if "messages" in row:
        row["messages"] = [normal_turn(turn) for turn in row["messages"]]
    if isinstance(row.get("tools"), str):
        row["tools"] = normal_tools(row["tools"])
    return row


def read_problems(folder: Path) -> dict[str | None, list[Problem]]:
    """Return the training rows by task, as problems whose solution is the row's completion; `None` is no task."""
    by_task: dict[str | None, list[Problem]] = {}
    for row in read_dataset(folder):
        by_task.setdefault(row.get("task"), []).append(problem_of(row))
    return by_task
