"""Stored generations: rows with `response`, and the `id` or the `index` of the problem."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from smallwit.errors import UserError
from smallwit.evaluation.runner import Row, graded, require_score, require_verdicts, row_of
from smallwit.evaluation.sample_file import SampleFile
from smallwit.evaluation.suite import Suite
from smallwit.rows import BadRow, numbered_rows
from smallwit.tasks.base import Problem

_GRADED_AT_ONCE = 64


def read_responses(path: Path, problems: Sequence[Problem]) -> dict[str, list[Row]]:
    """Return the rows for each problem that has any, in the problems' order; several for one problem are its samples.

    Raises `UserError` for a row that has no response or belongs to no problem, by file and line.
    """
    by_id = {problem.id: problem for problem in problems}
    found: dict[str, list[Row]] = {problem.id: [] for problem in problems}
    for line, row in numbered_rows(path, {"response": str}):
        if isinstance(row, BadRow):
            raise UserError(str(row))
        found[_problem(row, f"{path}:{line}", problems, by_id).id].append(row)
    found = {name: rows for name, rows in found.items() if rows}
    if not found:
        raise UserError(f"{path}: holds no rows; give one a response, with `response` and `id` or `index`")
    return found


def _problem(row: Row, where: str, problems: Sequence[Problem], by_id: Mapping[str, Problem]) -> Problem:
    if "id" in row and "index" not in row:
        problem = by_id.get(str(row["id"]))
        if problem is None:
            example = f"ids look like {problems[0].id}"
            raise UserError(f"{where}: no problem has the id {row['id']!r}; {example}; or give `index`, from 0")
        return problem
    index = row.get("index")
    if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < len(problems):
        what = f"index is {index!r}" if "index" in row else "it has neither id nor index"
        raise UserError(f"{where}: {what}; give the id of a problem, or an index from 0 to {len(problems) - 1}")
    return problems[index]


def grade_responses(suite: Suite, path: Path, stored: Mapping[str, Sequence[Row]]) -> list[Row]:
    """Return the rows of all stored responses with their verdicts, in the samples' order; `path` holds them."""
    with SampleFile(path) as file:
        waiting = [sample for sample in suite.samples if sample.key not in file.rows]
        for start in range(0, len(waiting), _GRADED_AT_ONCE):
            part = waiting[start : start + _GRADED_AT_ONCE]
            given = [stored[sample.problem.id][sample.number] for sample in part]
            pairs = [(sample.problem, str(row["response"])) for sample, row in zip(part, given, strict=True)]
            verdicts = graded(suite.task, suite.named.grade, pairs)
            for sample, row, verdict in zip(part, given, verdicts, strict=True):
                known = {key: row.get(key) for key in ("tokens", "prompt_tokens", "truncated", "seconds")}
                file.add(row_of(suite.task, sample, str(row["response"]), verdict) | known)
            require_verdicts(list(file.rows.values()), f"the responses on {suite.task.name}", len(suite.samples))
        rows = file.settle([sample.key for sample in suite.samples])
        require_score(rows, f"the responses on {suite.task.name}")
        return rows
