"""What a data step works with: the build's resources, an account of its rows, its files, and progress."""

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from smallwit.errors import UserError
from smallwit.inference.model import ServedModel
from smallwit.rows import Row
from smallwit.storage.journal import Journal
from smallwit.storage.jsonl import json_line
from smallwit.tasks.base import Task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


REPORT_SECONDS = 0.5


class VerifierFailed(Exception):
    """Raised when a verifier failed on so many rows that its verdicts on the others mean nothing."""


def _no_model(name: str, batch: int) -> ServedModel:
    raise LookupError(f"a step generates with model {name}, and this build has no models")


@dataclass(frozen=True)
class Resources:
    """What the steps of a build share.

    `tasks` are the recipe's. `load_tokenizer` is called when a step first counts tokens. `model(name, batch)` returns a
    model that steps generate with, `batch` requests at a time. `inputs` has the folders of the earlier stages that the
    steps read. `progress(share, text)` reports how much of the sources was read (0..1), `step_progress(step, share)`
    how much a step that generates has done of what reached it, `say(text)` a message for the user. `stop_if_asked()`
    raises when the build should stop; steps call it between pieces of work that are kept.
    """

    tasks: Mapping[str, Task]
    base: Path
    data_dir: Path | None
    seed: int
    load_tokenizer: "Callable[[], PreTrainedTokenizerBase]"
    inputs: Mapping[str, Path]
    progress: Callable[[float | None, str], None]
    say: Callable[[str], None]
    stop_if_asked: Callable[[], None]
    model: Callable[[str, int], ServedModel] = _no_model
    step_progress: Callable[[str, float], None] = lambda step, share: None

    @cached_property
    def tokenizer(self) -> "PreTrainedTokenizerBase":
        """Return the tokenizer that the stage names; load it on first use."""
        return self.load_tokenizer()

    def count_tokens(self, text: str) -> int:
        """Return the length of a text in tokens of the stage's tokenizer."""
        return len(self.tokenizer.encode(text, add_special_tokens=False))

    def task_of(self, row: Row) -> Task:
        """Return the task of a row. Raises `UserError` for a row without a task of the recipe."""
        name = str(row.get("task") or "")
        if name not in self.tasks:
            what = f"its task '{name}' is not in the recipe" if name else "it names no task"
            raise UserError(f"row {row['id']} cannot be verified: {what}; give its source a task of the recipe")
        return self.tasks[name]


@dataclass
class Account:
    """What a step did and cost, for the card: rows in and out, drops by rule, notes, FLOPs and generated tokens."""

    kind: str
    rows_in: int = 0
    rows_out: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    notes: dict[str, Any] = field(default_factory=dict)
    flops: float = 0.0
    tokens: int = 0

    def as_json(self) -> dict[str, Any]:
        """Return the account as JSON data."""
        return vars(self) | {"dropped": dict(self.dropped)}


class StepContext:
    """A step's view of the build: the shared resources, its account, its side files and the journal."""

    def __init__(
        self,
        resources: Resources,
        number: int,
        kind: str,
        build: Path,
        open_journal: Callable[[], Journal] | None = None,
    ) -> None:
        self.resources = resources
        self.name = f"{number:02d}-{kind}"
        self.account = Account(kind)
        self.build = build
        self._open_journal = open_journal
        self._side_files: dict[str, TextIO] = {}

    @property
    def journal(self) -> Journal:
        """Return the journal of results that survive a killed build. All steps share it.

        Raises `ValueError` in a build without one.
        """
        if self._open_journal is None:
            raise ValueError(f"step {self.name} generates with models, and its build keeps no journal")
        return self._open_journal()

    def drop(self, row: Row, rule: str, reason: str) -> None:
        """Count a row that the step does not pass on, and write it to `dropped/NN-KIND.jsonl` with the reason."""
        self.account.dropped[rule] += 1
        self.write_side_file("dropped", row | {"dropped": {"step": self.name, "rule": rule, "reason": reason}})

    def write_side_file(self, what: str, row: Mapping[str, Any]) -> None:
        """Append a row to the side file `WHAT/NN-KIND.jsonl` of the dataset."""
        file = self._side_files.get(what)
        if file is None:
            path = self.build / what / f"{self.name}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            file = self._side_files[what] = path.open("w", encoding="utf-8")
        file.write(json_line(row) + "\n")

    def note(self, key: str, value: Any) -> None:
        """Record a figure of the step (JSON data) for the card and the manifest."""
        self.account.notes[key] = value

    def close(self) -> None:
        """Close the side files."""
        for file in self._side_files.values():
            file.close()


class BuildProgress:
    """Reports how far a build is, at most twice a second: the share of its sources that was read, times what the steps
    that generate have done of the rows that reached them. It never falls."""

    def __init__(self, report: Callable[[float, str], None]) -> None:
        self.report = report
        self.reported = -REPORT_SECONDS
        self.read = self.share = 0.0
        self.steps: dict[str, float] = {}

    def step(self, name: str, share: float) -> None:
        """Note the `share` (0..1) that a step has done of the rows that reached it."""
        self.steps[name] = share

    def __call__(self, read: float | None, text: str) -> None:
        """Report that the share `read` (0..1) of the sources was read, and `text`. `None` repeats the last share."""
        self.read = self.read if read is None else read
        now = time.monotonic()
        if now - self.reported >= REPORT_SECONDS:
            self.reported = now
            self.share = max(self.share, self.read * math.prod(self.steps.values()))
            self.report(self.share, text)


class RateReporter:
    """Reports the rate of a loop as progress."""

    def __init__(self, resources: Resources, what: str) -> None:
        self.resources, self.what = resources, what
        self.started = time.monotonic()
        self.count = 0

    def step(self, share: float | None = None, count: int = 1) -> None:
        """Count `count` more items. `share` (0..1) is how much of all work is done, if known."""
        self.count += count
        rate = self.count / max(time.monotonic() - self.started, 1e-3)
        self.resources.progress(share, f"{self.count:,} {self.what}, {rate:,.0f} a second")
