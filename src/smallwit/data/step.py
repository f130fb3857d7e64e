"""What a step of a dataset's construction is: rows in, rows out, and an account of every row that it dropped."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from smallwit.data.personal import Finding, findings
from smallwit.data.turns import asked_and_answered, tools_text, turn_text
from smallwit.errors import UserError
from smallwit.inference.model import Model
from smallwit.rows import Row
from smallwit.storage.journal import Journal
from smallwit.storage.jsonl import json_line
from smallwit.tasks.base import Problem, Task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


REPORT_SECONDS = 0.5


class VerifierFailed(Exception):
    """Too many rows have no verdict because a verifier itself failed: what it would let pass means nothing."""


class Step(Protocol):
    """One step. What must outlive a killed build is in `context.journal`."""

    def rows(self, rows: Iterator[Row], context: "Context") -> Iterator[Row]:
        """The rows that the step lets pass or makes, in an order that depends on its input alone.

        It reads `rows` as it goes and keeps no more of them than it must (hashes, not texts). Every row that it does
        not pass on goes to `context.drop`.
        """
        ...


def _no_model(name: str, batch: int) -> "Model":
    raise LookupError(f"model {name} was asked for, and no step here asks one")


@dataclass(frozen=True)
class Resources:
    """What steps may ask for beside their rows.

    `tasks` are the recipe's. `load_tokenizer` is called when a step first counts tokens; `model(name, batch)` gives a
    model that can be asked. `inputs` has the folders of the earlier stages that the steps read. `progress(share, text)`
    tells how far the build is, `say(text)` what the user should know; `stop_if_asked()` raises when the build should
    stop, and is called between pieces of work that are kept.
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
    model: "Callable[[str, int], Model]" = _no_model

    @cached_property
    def tokenizer(self) -> "PreTrainedTokenizerBase":
        """The tokenizer that the stage names."""
        return self.load_tokenizer()

    def task_of(self, row: Row) -> Task:
        """The task that a row belongs to. Raises `UserError` for a row without one."""
        name = str(row.get("task") or "")
        if name not in self.tasks:
            what = f"its task '{name}' is none of the recipe's" if name else "it names no task"
            raise UserError(f"row {row['id']} cannot be verified: {what}; give its source a task of the recipe")
        return self.tasks[name]


@dataclass
class Account:
    """What a step did, for the card: rows in and out, drops by rule, what else it notes; and what it cost, in FLOPs and
    in tokens that models wrote."""

    kind: str
    rows_in: int = 0
    rows_out: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    notes: dict[str, Any] = field(default_factory=dict)
    flops: float = 0.0
    tokens: int = 0

    def as_json(self) -> dict[str, Any]:
        """All of it as JSON data."""
        return vars(self) | {"dropped": dict(self.dropped)}


class Context:
    """A step's own view of the build."""

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
        """What outlives a killed build, the same for all steps: a step finds its results whatever its number is."""
        if self._open_journal is None:
            raise ValueError(f"step {self.name} asks models, and its build keeps no journal")
        return self._open_journal()

    def drop(self, row: Row, rule: str, reason: str) -> None:
        """Account for a row that the step does not pass on; it is kept in `dropped/NN-KIND.jsonl`."""
        self.account.dropped[rule] += 1
        self.aside("dropped", row | {"dropped": {"step": self.name, "rule": rule, "reason": reason}})

    def aside(self, what: str, row: Mapping[str, Any]) -> None:
        """Add a line to the side file `WHAT/NN-KIND.jsonl` of the dataset."""
        file = self._side_files.get(what)
        if file is None:
            path = self.build / what / f"{self.name}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            file = self._side_files[what] = path.open("w", encoding="utf-8")
        file.write(json_line(row) + "\n")

    def note(self, key: str, value: Any) -> None:
        """A figure of the step (JSON data) for the card and the manifest."""
        self.account.notes[key] = value

    def close(self) -> None:
        """Close the side files."""
        for file in self._side_files.values():
            file.close()


class Progress:
    """Tells how far a build is and how long it will take, by the share of its sources that was read."""

    def __init__(self, tell: Callable[[float, str], None]) -> None:
        self.tell = tell
        self.started = time.monotonic()
        self.share = 0.0

    def __call__(self, share: float | None, text: str) -> None:
        """`share` is `None` where a step does not know it: it is what it was then."""
        self.share = self.share if share is None else share
        if self.share:
            text += f", {_clock((time.monotonic() - self.started) * (1 - self.share) / self.share)} left"
        self.tell(self.share, text)


class Pace:
    """The rate of a loop, told at most twice a second."""

    def __init__(self, resources: Resources, what: str) -> None:
        self.resources, self.what = resources, what
        self.started = self.told = time.monotonic()
        self.count = 0

    def step(self, share: float | None = None, count: int = 1) -> None:
        """`count` more are done, `share` (0..1) of all if that is known."""
        self.count += count
        now = time.monotonic()
        if now - self.told < REPORT_SECONDS:
            return
        self.told = now
        rate = self.count / (now - self.started)
        self.resources.progress(share, f"{self.count:,} {self.what}, {rate:,.0f} a second")


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"


# ---- rows


def texts(row: Row) -> tuple[str, str | None]:
    """The text that is asked and that is answered, whichever columns hold it. Of a conversation: all turns before the
    answer, one after the other, and the answer."""
    if row.get("messages"):
        asked, answer = asked_and_answered(row["messages"])
        return "\n\n".join(map(turn_text, asked)), None if answer is None else turn_text(answer)
    return row["prompt"], row.get("completion")


def answered(row: Row, text: str) -> Row:
    """The row with `text` as its answer: the completion, or the assistant's turn at the end of a conversation."""
    if not row.get("messages"):
        return row | {"completion": text}
    asked, _ = asked_and_answered(row["messages"])
    return row | {"messages": [*asked, {"role": "assistant", "content": text}]}


def problem_of(row: Row) -> Problem:
    """A row as a task's problem, so that the task's verifier can judge answers to it."""
    prompt, completion = texts(row)
    turns = row.get("messages") or []
    if turns:
        _, answer = asked_and_answered(turns)
        completion = None if answer is None else answer["content"]
    tools = tuple(row.get("tools") or ())
    return Problem(str(row["id"]), prompt, row.get("answer"), completion, tuple(turns), tools)


# ---- personal data


def screened(rows: Iterator[Row], context: Context, action: str) -> Iterator[Row]:
    """The rows on their way to a model, looked through for personal data.

    Findings go to the side file `personal-data`. Raises `UserError` at the first one when `action` is `stop`; that row
    has gone nowhere then.
    """
    found: Counter[str] = Counter()
    for row in rows:
        asked, answer = texts(row)
        for finding in findings("\n".join(filter(None, (asked, answer, tools_text(row))))):
            if action == "stop":
                raise UserError(_stopped(row, finding))
            found[finding.kind] += 1
            about = {"id": row["id"], "origin": row["origin"]}
            context.aside("personal-data", about | {"kind": finding.kind, "text": finding.text})
            context.note("personal data", dict(found))
        yield row


def _stopped(row: Row, finding: Finding) -> str:
    return (
        f"row {row['id']} of {row['origin']} holds what looks like {finding.kind} ({finding.text}), and would go to a "
        "model; drop it by a filter, or set on_personal_data: report"
    )
