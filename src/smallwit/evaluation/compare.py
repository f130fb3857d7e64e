"""`smallwit compare A B`: two evaluations problem by problem."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from smallwit.errors import UserError
from smallwit.evaluation.comparison import Outcome, TaskComparison, compare_tasks
from smallwit.evaluation.comparison_table import few, print_comparison
from smallwit.evaluation.reasons import Transitions, for_reading
from smallwit.evaluation.scores import Row
from smallwit.evaluation.stored import StoredEvaluation, common_rows, comparable, read_evaluation
from smallwit.storage.jsonl import json_line


@dataclass(frozen=True)
class _Pair:
    """What two evaluations have in common, by task, and what has to be said of it."""

    a: dict[str, list[Row]] = field(default_factory=dict)
    b: dict[str, list[Row]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def compare(
    a: str,
    b: str,
    console: Console,
    *,
    json_out: Path | None,
    problems_out: Path | None,
    read_out: Path | None,
    across_protocols: bool,
) -> None:
    """Print how `a` compares with `b`, and write it to the files asked for.

    Raises `UserError` when they have no task or problem in common, or were measured by different protocols (unless
    `across_protocols`).
    """
    first, second = read_evaluation(a), read_evaluation(b)
    pair = _common(first, second, across_protocols)
    tasks, pooled = compare_tasks(pair.a, pair.b)
    if not tasks:
        raise UserError(f"compare {a} {b}: there is no problem for which both have a verdict")
    everything = [*tasks, pooled] if pooled else tasks
    reasons = {found.task: Transitions.of(pair.a[found.task], pair.b[found.task]) for found in tasks}
    print_comparison(console, a, b, everything, reasons, pair.notes)
    if json_out:
        told = {task: {"reasons": found.as_json()} for task, found in reasons.items()}
        entries = [found.as_json() | told.get(found.task, {}) for found in everything]
        about = {"schema": 1, "a": a, "b": b, "notes": pair.notes, "comparisons": entries}
        _write(json_out, json.dumps(about, indent=1, ensure_ascii=False) + "\n", "--json")
    if problems_out:
        lines = (json_line(row) + "\n" for found in tasks for row in _problem_rows(found, pair))
        _write(problems_out, "".join(lines), "--problems")
    if read_out:
        sides = ((found.task, name, rows[found.task]) for found in tasks for name, rows in ((a, pair.a), (b, pair.b)))
        _write(read_out, "\n".join(for_reading(*side) for side in sides), "--read")


def _common(a: StoredEvaluation, b: StoredEvaluation, across_protocols: bool) -> _Pair:
    """Return the rows of the same problems under the same protocol."""
    tasks = [task for task in a.protocols if task in b.protocols]
    if not tasks:
        theirs = f"{', '.join(a.protocols)} there, {', '.join(b.protocols)} here"
        raise UserError(
            f"compare {a.name} {b.name}: they have no task in common ({theirs}); evaluate one of them again"
        )
    pair = _Pair()
    for one, other in ((a, b), (b, a)):
        if only := [task for task in one.protocols if task not in other.protocols]:
            pair.notes.append(f"only {one.name} was measured on {', '.join(only)}")
    for task in tasks:
        forbidden, said = comparable(a.protocols[task], b.protocols[task])
        if forbidden and not across_protocols:
            raise UserError(
                f"compare {a.name} {b.name}: {task} was measured by different protocols ({'; '.join(forbidden[:4])}): "
                "evaluate one of them again, or add --across-protocols to compare what cannot be compared"
            )
        pair.notes.extend(f"{task}: DIFFERENT PROTOCOLS, {text}" for text in forbidden)
        pair.notes.extend(f"{task}: {text}" for text in said)
        rows_a, rows_b, unlike = common_rows(a.rows[task], b.rows[task], across_protocols)
        if unlike:
            pair.notes.append(f"{task}: left out, other problems under the same id: {few(unlike)}")
        counts = [len({row["id"] for row in rows}) for rows in (rows_a, a.rows[task], b.rows[task])]
        if len(set(counts)) > 1:
            pair.notes.append(f"{task}: {counts[0]} problems in common, of {counts[1]} and {counts[2]}")
        if rows_a:
            pair.a[task], pair.b[task] = rows_a, rows_b
    return pair


def _problem_rows(found: TaskComparison, pair: _Pair) -> list[dict[str, Any]]:
    """Return one row a problem, with the answers that were read, in the order of the samples."""
    answers = [_answers(rows[found.task]) for rows in (pair.a, pair.b)]
    return [_problem_row(outcome, answers[0][outcome.id], answers[1][outcome.id]) for outcome in found.outcomes]


def _answers(rows: Sequence[Row]) -> dict[str, list[str | None]]:
    found: dict[str, list[str | None]] = {}
    for row in rows:
        found.setdefault(row["id"], []).append(row["answer"])
    return found


def _problem_row(outcome: Outcome, answers_a: list[str | None], answers_b: list[str | None]) -> dict[str, Any]:
    about = {"task": outcome.task, "id": outcome.id, "outcome": outcome.outcome, "a": outcome.a, "b": outcome.b}
    return about | {"answers_a": answers_a, "answers_b": answers_b}


def _write(path: Path, text: str, option: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{option} {path}: cannot be written ({error.strerror}); name another file") from error
