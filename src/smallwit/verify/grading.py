"""Files of responses, graded row by row: what `smallwit grade` does, for Python.

    >>> grade_math_file(Path("responses.jsonl"), Path("graded.jsonl")).score  # doctest: +SKIP
    0.5

A row of the graded file is the row of the source with the keys `ADDED` behind its own; the order is the source's. Rows
are appended as they are judged, so whatever ends the work, the same call goes on behind the last whole row. Beside the
graded file lies `NAME.summary.json`: the settings from the start on, the scores at the end. The source is read twice,
a row at a time, and never held whole.
"""

import contextlib
import itertools
import json
import os
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from smallwit.errors import UserError
from smallwit.rows import BadRow, Row, scan_rows
from smallwit.storage.append_log import AppendLog
from smallwit.storage.artifacts import write_atomically
from smallwit.storage.jsonl import json_line
from smallwit.thoughts import answer_part
from smallwit.verify import code, consent, math
from smallwit.verify.sandbox.isolation import LEVELS
from smallwit.verify.verdict import Verdict

ADDED = ("score", "strict", "answer", "reason", "seconds")

Verdicts = Generator[Verdict, None, None]

Tell = Callable[[int, int], None]
"""Called with the number of rows that are graded and of all rows."""


@dataclass
class Summary:
    """What a graded file comes to.

    `score` and `strict` are means over the rows that have a verdict (`None` if none has), `reasons` counts the rows by
    reason, `several_boxes` is the share of responses whose boxes hold different answers (math only), `isolation` the
    weakest level that programs ran at (code only). `timeout` is in CPU seconds.
    """

    kind: str
    timeout: float
    isolation: str | None = None
    complete: bool = False
    rows: int = 0
    score: float | None = None
    strict: float | None = None
    several_boxes: float | None = None
    reasons: dict[str, int] = field(default_factory=dict)


def grade_math_file(
    source: Path, out: Path, *, timeout: float = math.CPU_SECONDS, workers: int | None = None, tell: Tell | None = None
) -> Summary:
    """Grade rows `{"id", "gold", "response"}` of a JSONL file by `math.grade_math_stream`.

    `timeout` is the CPU time for the formulas of one answer, `workers` the number of processes that compare them (the
    cores by default). Raises `UserError` for a source with a bad row (before anything is graded), and for an `out` that
    cannot be written, belongs to another source, was begun with other settings or is being written by another process.
    """
    return _grade_file(_MATH, source, out, timeout, workers, tell)


def grade_code_file(
    source: Path, out: Path, *, timeout: float = code.CPU_SECONDS, workers: int | None = None, tell: Tell | None = None
) -> Summary:
    """Grade rows `{"id", "prompt", "entry_point", "response", "tests", "setup"?}` by `code.judge_stream`.

    `timeout` is the CPU time of one program, `workers` the number of programs at a time (the cores by default). Raises
    as `grade_math_file` does, and where this machine isolates programs too little (`consent`).
    """
    return _grade_file(_CODE, source, out, timeout, workers, tell)


def count_rows(kind: Literal["math", "code"], source: Path) -> int:
    """Return the rows of a file that `grade` takes. Raises `UserError` if one of them cannot be graded."""
    return _count(_MATH if kind == "math" else _CODE, source)


# ---- what the two kinds of rows are


@dataclass(frozen=True)
class _Kind:
    name: str
    columns: Mapping[str, type]
    check: Callable[[Row], str | None]
    grade: Callable[[Iterable[Row], float, int | None], Verdicts]
    isolation: Callable[[], str | None]


def _isolation() -> str:
    """Return the level that programs run at. Raises `UserError` where the user has not accepted so little."""
    if refused := code.objection("grade code", consent.LEAST_ISOLATION):
        raise UserError(refused)
    return code.isolation_level()


def _grade_math(rows: Iterable[Row], timeout: float, workers: int | None) -> Verdicts:
    pairs = ((row["gold"], row["response"]) for row in rows)
    return math.grade_math_stream(pairs, cpu_seconds=timeout, workers=workers)


def _grade_code(rows: Iterable[Row], timeout: float, workers: int | None) -> Verdicts:
    return code.judge_stream(map(_job, rows), cpu_seconds=timeout, workers=workers)


def _job(row: Row) -> code.CodeJob:
    parts = {name: row[name] for name in ("prompt", "entry_point", "response", "tests")}
    return code.CodeJob(**parts, setup=row.get("setup") or "")


def _check_id(row: Row) -> str | None:
    if "id" not in row:
        return f"column 'id' is missing; the row has {', '.join(map(repr, row)) or 'none'}"
    name = row["id"]
    if isinstance(name, (list, dict)) or (isinstance(name, float) and name - name != 0):
        return "column 'id' must be text, a finite number, true, false or null"
    return None


def _check_code(row: Row) -> str | None:
    tests, setup = row.get("tests"), row.get("setup")
    if isinstance(tests, list) and not all(isinstance(test, str) for test in tests):
        return "column 'tests' must be a source that defines check(candidate), or a list of assert lines, all text"
    if not isinstance(tests, (str, list)) or not "".join(tests).strip():
        return f"column 'tests' must be text or a list of texts, and not empty; this is {json.dumps(tests)[:60]}"
    if setup is not None and not isinstance(setup, str):
        return f"column 'setup' must be text or left out; this is {json.dumps(setup)[:60]}"
    if not row["entry_point"].isidentifier():
        return f"column 'entry_point' must be the name of a function; this is {row['entry_point'][:60]!r}"
    return _check_id(row)


_MATH = _Kind("math", {"gold": str, "response": str}, _check_id, _grade_math, lambda: None)
_CODE = _Kind("code", {"prompt": str, "entry_point": str, "response": str}, _check_code, _grade_code, _isolation)


# ---- a file


def _grade_file(
    kind: _Kind, source: Path, out: Path, timeout: float, workers: int | None, tell: Tell | None
) -> Summary:
    if not 0 < timeout < 1e6:
        raise UserError(f"a timeout of {timeout} seconds; give a positive number")
    if workers is not None and workers < 1:
        raise UserError(f"{workers} workers; give 1 or more")
    tell = tell or (lambda done, total: None)
    total = _count(kind, source)
    isolation = kind.isolation()
    with _open(source, out) as log:
        totals = _Totals(kind.name == "math")
        done, rows = _go_on(log, out, source, _rows(kind, source), totals)
        summary = Summary(kind.name, timeout, isolation)
        _join(out, summary, done)
        _write_summary(out, summary)
        tell(done, total)
        ahead, behind = itertools.tee(rows)
        answers = (row | {"response": answer_part(row["response"])} for row in ahead)
        with contextlib.closing(kind.grade(answers, timeout, workers)) as verdicts:
            for number, (row, verdict) in enumerate(zip(behind, verdicts, strict=True), done + 1):
                graded = _head(row) | dict(zip(ADDED, _values(verdict), strict=True))
                log.append(json_line(graded).encode() + b"\n")
                totals.add(graded)
                tell(number, total)
        log.sync()
        totals.into(summary)
        _write_summary(out, summary)
    return summary


def _rows(kind: _Kind, source: Path) -> Iterator[Row]:
    for row in scan_rows(source, kind.columns, check=kind.check):
        if isinstance(row, BadRow):
            raise UserError(f"{row}; mend or remove the row")
        yield row


def _count(kind: _Kind, source: Path) -> int:
    """Return the number of rows. Raises `UserError` if one of them cannot be graded."""
    total, bad, first = 0, 0, None
    for row in scan_rows(source, kind.columns, check=kind.check):
        total += 1
        if isinstance(row, BadRow):
            bad += 1
            first = first or row
    if first is not None:
        more = f" ({bad} of {total} rows are bad)" if bad > 1 else ""
        raise UserError(f"{first}{more}; mend or remove the row{'s' if bad > 1 else ''}: nothing was graded")
    if not total:
        raise UserError(f"{source}: the file holds no rows; check that it was written completely")
    return total


@contextlib.contextmanager
def _open(source: Path, out: Path) -> Iterator[AppendLog]:
    """Open `out` as the log of graded rows. A file that holds nothing after a mistake of the user is removed."""
    if out.exists() and out.samefile(source):
        raise UserError(f"{out}: is the source itself; name another file")
    if out.exists() and not out.is_file():
        raise UserError(f"{out}: is no file; name one")
    if out.parent.is_dir() and not os.access(out.parent, os.W_OK):
        raise UserError(f"{out.parent}: cannot be written to; name a file in another folder")
    if not out.parent.is_dir():
        raise UserError(f"{out}: cannot be written (there is no such folder); name another file")
    new = not out.exists()
    with AppendLog(out, follow_links=True) as log:
        try:
            yield log
        except UserError:
            if new and not log.size():
                out.unlink()
            raise


def _go_on(
    log: AppendLog, out: Path, source: Path, rows: Iterator[Row], totals: "_Totals"
) -> tuple[int, Iterator[Row]]:
    """Return how many rows are graded, and an iterator over the others. An unfinished last line is cut off."""
    remedy = f"name another file, or remove this one to grade {source} anew"
    done = end = 0
    for start, line in log.lines():
        row = next(rows, None)
        head = b"" if row is None else json_line(_head(row))[:-1].encode() + b', "score": '
        torn = not line.endswith(b"\n")
        if row is None or not (line.startswith(head) or (torn and head.startswith(line))):
            raise UserError(f"{out}:{done + 1}: is not row {done + 1} of {source}, graded; {remedy}")
        if torn:
            rows = itertools.chain([row], rows)
            break
        try:
            totals.add(json.loads(line))
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{out}:{done + 1}: is damaged; {remedy}") from error
        done += 1
        end = start + len(line)
    log.rewind(end)
    return done, rows


def _head(row: Row) -> Row:
    return {name: value for name, value in row.items() if name not in ADDED}


def _values(verdict: Verdict) -> tuple[Any, ...]:
    return verdict.score, verdict.strict, verdict.answer, verdict.reason, round(verdict.seconds, 6)


class _Totals:
    """What the summary says of the rows, from the rows alone: they may have been graded by a process long gone."""

    def __init__(self, boxes: bool) -> None:
        self.boxes = boxes
        self.rows = self.judged = self.several = 0
        self.score = self.strict = 0.0
        self.reasons: Counter[str] = Counter()

    def add(self, row: Row) -> None:
        self.rows += 1
        self.reasons[row["reason"]] += 1
        if row["score"] is not None:
            self.judged += 1
            self.score += row["score"]
            self.strict += row["strict"]
        if self.boxes:
            self.several += math.several_boxes(answer_part(row["response"]))

    def into(self, summary: Summary) -> None:
        summary.complete, summary.rows, summary.reasons = True, self.rows, dict(self.reasons.most_common())
        if self.judged:
            summary.score, summary.strict = self.score / self.judged, self.strict / self.judged
        if self.boxes:
            summary.several_boxes = self.several / self.rows


def summary_path(out: Path) -> Path:
    """Return the path of the summary of a graded file."""
    return out.with_name(out.name + ".summary.json")


def _write_summary(out: Path, summary: Summary) -> None:
    write_atomically(summary_path(out), json.dumps(asdict(summary), indent=1) + "\n")


def _join(out: Path, summary: Summary, done: int) -> None:
    """Check that the rows that are there were graded by the same settings, and keep the weaker isolation of the two."""
    path = summary_path(out)
    if not path.exists():
        if done:
            raise UserError(f"{out}: is begun, but {path.name} with its settings is missing; name another file")
        return
    try:
        before = Summary(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path}: is in the way, and is no summary of a graded file; move it") from error
    if not done:
        return
    if (before.kind, before.timeout) != (summary.kind, summary.timeout):
        raise UserError(
            f"{out}: was begun by grade {before.kind} with a timeout of {before.timeout:g} seconds, this is grade "
            f"{summary.kind} with {summary.timeout:g}; give the same, or name another file"
        )
    if before.isolation is not None and summary.isolation is not None:
        summary.isolation = min(before.isolation, summary.isolation, key=LEVELS.index)
