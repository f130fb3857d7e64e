"""The filter rule `agreement`."""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from smallwit.data.context import Resources, VerifierFailed
from smallwit.data.row_access import problem_of
from smallwit.data.rule import FilterRule, RowCheck
from smallwit.rows import Row
from smallwit.verify.failures import too_many_failures, with_retry


class AgreementRule(FilterRule):
    """The task's verifier accepts the completion in the declared format."""

    kind: Literal["agreement"] = Field(description="the task's verifier accepts the completion in the declared format")

    @property
    def uses_verifiers(self) -> bool:
        """Return true."""
        return True

    def row_check(self, resources: Resources) -> RowCheck:
        """Return the test of a batch. It raises `VerifierFailed` when too many rows have no verdict."""
        return _VerifierCheck(resources)


class _VerifierCheck:
    """The task's verifier in its strict reading, as the reward and the benchmark use it."""

    def __init__(self, resources: Resources) -> None:
        self.resources = resources
        self.judged = self.unknown = 0

    def __call__(self, rows: Sequence[Row]) -> list[str | None]:
        reasons: list[str | None] = [None] * len(rows)
        by_task: dict[str, list[int]] = {}
        for index, row in enumerate(rows):
            if problem_of(row).solution is None:
                reasons[index] = "has no completion"
            else:
                by_task.setdefault(self.resources.task_of(row).name, []).append(index)
        for name, indices in by_task.items():
            problems = [problem_of(rows[index]) for index in indices]
            pairs = [(problem, problem.solution or "") for problem in problems]
            for index, verdict in zip(indices, with_retry(self.resources.tasks[name].judge, pairs), strict=True):
                self.judged += 1
                if verdict.strict is None:
                    self.unknown += 1
                    reasons[index] = f"the verifier itself failed ({verdict.reason})"
                elif verdict.strict < 1.0:
                    reasons[index] = f"scores {verdict.strict:g} ({verdict.reason}); its answer is {verdict.answer}"
        if message := too_many_failures(self.unknown, self.judged, "rows"):
            raise VerifierFailed(message)
        return reasons
