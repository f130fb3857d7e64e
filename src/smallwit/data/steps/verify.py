"""The step `verify`: keep the answers that the task's verifier accepts, and of those the ones worth learning."""

from collections.abc import Iterator, Sequence
from typing import Literal

from pydantic import Field

from smallwit.data.context import StepContext
from smallwit.data.response_selection import ResponseSelection, SelectionField
from smallwit.data.row_access import batched, by_problem, completion_of, problem_with_gold
from smallwit.data.step import DataStep
from smallwit.data.turns import split_answer
from smallwit.errors import UserError
from smallwit.rows import Row
from smallwit.verify import Verdict
from smallwit.verify.failures import too_many_failures, with_retry

PROBLEMS_PER_BATCH = 256
"""Problems whose answers are judged together, so that all of the judge's processes have work."""


class Verify(DataStep):
    """Keep the answers that the task's verifier accepts, and of those what `keep` says. Equal answers count once.

    Answers to one problem are adjacent rows with one id. Drops by the rules `wrong`, `not-kept` (accepted, but not
    chosen) and `no-verdict` (the verifier failed, twice).
    """

    kind: Literal["verify"] = Field(description="keep the answers that the task's verifier accepts")
    reading: Literal["strict", "score"] = Field(
        default="strict", description="strict: the answer must be in the declared format; score: in any format"
    )
    keep: SelectionField = Field(
        default=ResponseSelection(rule="shortest"), description="which accepted answers of a problem are kept"
    )
    wrong: Literal["drop", "preference"] = Field(
        default="drop",
        description="preference: also write pairs of a kept and a wrong answer to a side file, for analysis or DPO",
    )

    @property
    def uses_verifiers(self) -> bool:
        """Return true."""
        return True

    def smoke(self, problems: int, max_new_tokens: int) -> None:
        """Leave the step out: a model with random weights gets nothing right."""
        return

    def rows(self, rows: Iterator[Row], context: StepContext) -> Iterator[Row]:
        """Yield the kept rows, problem by problem.

        Raises `UserError` at the end when too many answers have no verdict.
        """
        seen = unknown = solved = problems = 0
        for groups in batched(by_problem(rows), PROBLEMS_PER_BATCH):
            verdicts = iter(verdicts_on([row for group in groups for row in group], context))
            for group in groups:
                judged = [(row, next(verdicts)) for row in group]
                right = [row for row, verdict in judged if self._score(verdict) == 1.0]
                seen, problems, solved = seen + len(group), problems + 1, solved + bool(right)
                unknown += sum(self._score(verdict) is None for _, verdict in judged)
                yield from self._select(judged, right, context)
        context.note("problems", problems)
        context.note("solved problems", solved)
        if message := too_many_failures(unknown, seen, "answers"):
            raise UserError(message)

    def _score(self, verdict: Verdict) -> float | None:
        return verdict.strict if self.reading == "strict" else verdict.score

    def _select(
        self, judged: Sequence[tuple[Row, Verdict]], right: Sequence[Row], context: StepContext
    ) -> Iterator[Row]:
        chosen = [right[index] for index in self.keep.select([completion_of(row) for row in right])]
        identities = {id(row) for row in chosen}
        wrong = []
        for row, verdict in judged:
            if self._score(verdict) is None:
                context.drop(row, "no-verdict", verdict.reason)
            elif self._score(verdict) != 1.0:
                wrong.append(row)
                context.drop(row, "wrong", verdict.reason)
            elif id(row) not in identities:
                context.drop(row, "not-kept", f"keep: {self.keep.rule}")
        if self.wrong == "preference":
            for better, worse in zip(chosen, wrong, strict=False):
                context.write_side_file("preferences", preference_pair(better, worse))
        yield from chosen


def preference_pair(better: Row, worse: Row) -> Row:
    """Return a row of TRL's preference format (texts, or turns of a conversation), with its provenance."""
    about = {name: better[name] for name in ("tools", "id", "task", "origin", "license") if name in better}
    if better.get("messages"):
        prompt, chosen = split_answer(better["messages"])
        return {"prompt": prompt, "chosen": [chosen], "rejected": [worse["messages"][-1]]} | about
    return {"prompt": better["prompt"], "chosen": better["completion"], "rejected": worse["completion"]} | about


def verdicts_on(rows: Sequence[Row], context: StepContext) -> list[Verdict]:
    """Return the verdicts of the rows' tasks on their completions, in order. A failed verdict is tried once more."""
    found: dict[int, Verdict] = {}
    by_task: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        by_task.setdefault(context.resources.task_of(row).name, []).append(index)
    for name, indices in by_task.items():
        pairs = [(problem_with_gold(rows[index]), completion_of(rows[index])) for index in indices]
        found |= dict(zip(indices, with_retry(context.resources.tasks[name].judge, pairs), strict=True))
    return [found[index] for index in range(len(rows))]
