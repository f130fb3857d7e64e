"""Keep the answers that the task's verifier accepts, and of those the ones that are worth learning."""

from collections.abc import Iterator, Sequence
from itertools import groupby

from smallwit.data.response_selection import kept
from smallwit.data.step import Context, problem_of
from smallwit.data.turns import asked_and_answered
from smallwit.errors import UserError
from smallwit.inference.client import chunks
from smallwit.recipe.generation import Verify
from smallwit.rows import Row
from smallwit.tasks.base import Problem
from smallwit.verify import Verdict
from smallwit.verify.failures import too_many_failures

AT_ONCE = 256
"""Problems whose answers are judged together, so that the judge's processes all have work."""


class VerifyStep:
    """The step `verify`. Answers to one problem are rows of one id, one after the other.

    Drops by the rules `wrong`, `not-kept` (accepted, but not chosen) and `no-verdict` (the verifier itself failed,
    twice). Raises `UserError` at the end when too many have no verdict.
    """

    def __init__(self, spec: Verify) -> None:
        self.spec = spec

    def rows(self, rows: Iterator[Row], context: Context) -> Iterator[Row]:
        """The kept rows, problem by problem."""
        seen = unknown = solved = problems = 0
        for groups in chunks(problem_groups(rows), AT_ONCE):
            verdicts = iter(verdicts_on([row for group in groups for row in group], context))
            for group in groups:
                judged = [(row, next(verdicts)) for row in group]
                good = [row for row, verdict in judged if self._score(verdict) == 1.0]
                seen, problems, solved = seen + len(group), problems + 1, solved + bool(good)
                unknown += sum(self._score(verdict) is None for _, verdict in judged)
                yield from self._kept(judged, good, context)
        context.note("problems", problems)
        context.note("solved problems", solved)
        if message := too_many_failures(unknown, seen, "answers"):
            raise UserError(message)

    def _score(self, verdict: Verdict) -> float | None:
        return verdict.strict if self.spec.reading == "strict" else verdict.score

    def _kept(self, judged: Sequence[tuple[Row, Verdict]], good: Sequence[Row], context: Context) -> Iterator[Row]:
        chosen = [good[place] for place in kept([answer_of(row) for row in good], self.spec.keep)]
        identities = {id(row) for row in chosen}
        wrong = []
        for row, verdict in judged:
            if self._score(verdict) is None:
                context.drop(row, "no-verdict", verdict.reason)
            elif self._score(verdict) != 1.0:
                wrong.append(row)
                context.drop(row, "wrong", verdict.reason)
            elif id(row) not in identities:
                context.drop(row, "not-kept", f"keep: {self.spec.keep.rule}")
        if self.spec.wrong == "preference":
            for better, worse in zip(chosen, wrong, strict=False):
                context.aside("preferences", preference(better, worse))
        yield from chosen


def preference(better: Row, worse: Row) -> Row:
    """TRL's columns of a pair, texts or turns, and what says where it came from."""
    about = {name: better[name] for name in ("tools", "id", "task", "origin", "license") if name in better}
    if better.get("messages"):
        asked, chosen = asked_and_answered(better["messages"])
        return {"prompt": asked, "chosen": [chosen], "rejected": [worse["messages"][-1]]} | about
    return {"prompt": better["prompt"], "chosen": better["completion"], "rejected": worse["completion"]} | about


def problem_groups(rows: Iterator[Row]) -> Iterator[list[Row]]:
    """Rows of one problem (task and id) that stand together."""
    for _, group in groupby(rows, key=lambda row: (row.get("task"), row["id"])):
        yield list(group)


def verdicts_on(rows: Sequence[Row], context: Context) -> list[Verdict]:
    """The verdicts of the rows' tasks on their completions, in order; what could not be judged is judged once more."""
    found: dict[int, Verdict] = {}
    for _ in range(2):
        by_task: dict[str, list[int]] = {}
        for place, row in enumerate(rows):
            if place not in found or found[place].score is None or found[place].strict is None:
                by_task.setdefault(context.resources.task_of(row).name, []).append(place)
        for name, places in by_task.items():
            pairs = [(golden(rows[place]), answer_of(rows[place])) for place in places]
            found |= dict(zip(places, context.resources.tasks[name].judge(pairs), strict=True))
    return [found[place] for place in range(len(rows))]


def golden(row: Row) -> Problem:
    """The row as a problem whose answers can be judged. Raises `UserError` for one without a gold answer."""
    if "answer" not in row:
        raise UserError(
            f"row {row['id']} has no column 'answer', and without the gold answer nothing can be verified; map the "
            "column in its source (columns: {answer: NAME})"
        )
    return problem_of(row)


def answer_of(row: Row) -> str:
    """The row's answer. Raises `UserError` when it has none to judge."""
    solution = problem_of(row).solution
    if solution is None:
        raise UserError(f"row {row['id']} has no completion to verify; generate one first, or filter such rows out")
    return solution
