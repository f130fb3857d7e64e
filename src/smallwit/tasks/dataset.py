"""Tasks whose problems are rows of a published dataset, in a folder of files or on the Hugging Face hub.

Nothing is read before `problems()` is called. With `data_dir` (or the variable SMALLWIT_DATA_DIR) the rows come from
the files there and from nowhere else; without it from the hub, at `revision` if one is given.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import ClassVar

from smallwit.errors import UserError
from smallwit.network import hub
from smallwit.rows import Row, read_rows
from smallwit.tasks.base import SPLITS, Problem, Task
from smallwit.tasks.registry import task_classes

DATA_DIR_VARIABLE = "SMALLWIT_DATA_DIR"
VALIDATION_SHARE = 20
"""One in so many problems of a training set without a validation split of its own is held out for validation."""


@dataclass(frozen=True, slots=True)
class DatasetSource:
    """Where one set of rows is: `file` in the data folder, `hub` (repository, configurations, split) otherwise.

    `configs` of a dataset that is split by subject are read one after the other.
    """

    file: str
    repository: str
    split: str
    configs: tuple[str | None, ...] = (None,)


class DatasetTask(Task):
    """Base of such tasks. A subclass sets `name`, `license`, `sources` and `columns`, and defines `problem`.

    `sources` says where the rows of `train` and `test` are. A `validation` split that `sources` does not name is cut
    out of the training rows: those whose question hashes to 0 modulo `VALIDATION_SHARE`. It depends on the text alone,
    so it is the same from files and from the hub, and two rows with one text are on the same side.

    `strata` maps a name (`subject`) to the columns that may hold a row's value of it.
    """

    sources: ClassVar[Mapping[str, DatasetSource]]
    columns: ClassVar[Mapping[str, type]]
    strata: ClassVar[Mapping[str, Sequence[str]]] = {}

    def __init__(self, data_dir: Path | None = None, revision: str | None = None) -> None:
        folder = data_dir or os.environ.get(DATA_DIR_VARIABLE) or None
        self.data_dir = None if folder is None else Path(folder)
        self.revision = revision
        self._problems: dict[str, Sequence[Problem]] = {}
        self._published: dict[str, Row] = {}

    def problem(self, row: Row, index: int, split: str) -> Problem:
        """Return the problem of row `index` of the rows that `sources` names for `split`."""
        raise NotImplementedError(f"{type(self).__name__} defines no problem()")

    def asked(self, problem: Problem) -> Problem:
        """Return a problem as a model is asked it. Options that change the message act here, behind the splits."""
        return problem

    def problems(self, split: str) -> Sequence[Problem]:
        """Return the problems of `split`, read at the first call.

        Raises `UserError` where there is no such split or data.
        """
        if split not in SPLITS:
            raise UserError(f"task {self.name}: no split {split!r}, the splits are {', '.join(SPLITS)}")
        if split not in self.sources and not (split == "validation" and "train" in self.sources):
            raise UserError(f"task {self.name} has no {split} split; it has {', '.join(self.sources)}")
        if split not in self._problems:
            rows_of = split if split in self.sources else "train"
            rows = self._rows(rows_of)
            problems = [
                replace(self.problem(row, index, rows_of), strata=self._strata(row)) for index, row in enumerate(rows)
            ]
            self._published |= {problem.id: row for problem, row in zip(problems, rows, strict=True)}
            if rows_of == "train" and "validation" not in self.sources:
                self._problems["validation"] = [self.asked(problem) for problem in problems if held_out(problem)]
                problems = [problem for problem in problems if not held_out(problem)]
            self._problems[rows_of] = [self.asked(problem) for problem in problems]
        return self._problems[split]

    def published(self, split: str) -> list[Row]:
        """Return the rows of `train` or `test` as they were published.

        Raises `UserError` where they cannot be found.
        """
        if split not in self.sources:
            raise UserError(f"task {self.name} has no {split} rows; it has {', '.join(self.sources)}")
        return self._rows(split)

    def row(self, problem: Problem) -> Row:
        """Return the row of a problem as it was published."""
        return self._published[problem.id]

    def fingerprint(self) -> str:
        """Return the sha256 of all problems of all splits, in order: equal for tasks with the same problems."""
        digest = hashlib.sha256()
        for split in SPLITS:
            if split in self.sources:
                for problem in self.problems(split):
                    digest.update(json.dumps([split, *astuple(problem)], sort_keys=True).encode())
        return digest.hexdigest()

    def gold_response(self, problem: Problem) -> str:
        """Return a response in the declared format that holds the gold answer and nothing else."""
        raise NotImplementedError(f"{type(self).__name__} defines no gold_response()")

    def _strata(self, row: Row) -> tuple[tuple[str, str], ...]:
        found = {name: next((row[key] for key in keys if row.get(key)), None) for name, keys in self.strata.items()}
        return tuple((name, str(value).removeprefix("Level ")) for name, value in found.items() if value is not None)

    def _file(self, source: DatasetSource) -> Path:
        assert self.data_dir is not None
        path = self.data_dir / source.file
        if not path.is_file():
            raise UserError(
                f"task {self.name}: {path} is not there; put the file there, or leave out --data-dir and "
                f"{DATA_DIR_VARIABLE} to read {source.repository} from the Hugging Face hub"
            )
        return path

    def _rows(self, split: str) -> list[Row]:
        source = self.sources[split]
        if self.data_dir is None:
            return self._hub_rows(source)
        # A test set with a row missing is another test set: only training rows may be left out.
        return read_rows(self._file(source), 0.001 if split == "train" else 0.0, self.columns)[0]

    def _hub_rows(self, source: DatasetSource) -> list[Row]:
        import datasets
        import httpx2

        trouble = hub.unreachable()
        rows: list[Row] = []
        try:
            commit = hub.dataset_commit(source.repository, self.revision)
            for config in source.configs:
                rows += datasets.load_dataset(source.repository, config, split=source.split, revision=commit)
        except (OSError, ValueError, httpx2.HTTPError, datasets.exceptions.DatasetsError) as error:
            at = f" at revision {self.revision}" if self.revision else ""
            raise UserError(
                f"task {self.name}: cannot read {source.repository}{at} from the Hugging Face hub "
                f"({hub.reason(error, trouble)}); connect to it, or put {source.file} into a folder and name that "
                f"folder by --data-dir or {DATA_DIR_VARIABLE}"
            ) from error
        return rows


def benchmark_names() -> list[str]:
    """Return the names of the built-in tasks whose test split is a published dataset."""
    return [name for name, each in task_classes().items() if issubclass(each, DatasetTask) and "test" in each.sources]


def held_out(problem: Problem) -> bool:
    """Return whether a problem of a training set belongs to the validation split cut out of it."""
    digest = hashlib.sha256(problem.prompt.encode()).digest()
    return int.from_bytes(digest[:8], "big") % VALIDATION_SHARE == 0
