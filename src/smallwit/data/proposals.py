"""A proposal of the step `augment`: a new problem or solution, before samples have proved it."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from smallwit.data.generation import PromptTemplate
from smallwit.data.reply_parsing import FunctionSignature, TestCase, UnusableReply
from smallwit.tasks.base import Problem, Task

if TYPE_CHECKING:
    from smallwit.data.agreement import Agreement


@dataclass(frozen=True)
class Proposal:
    """A problem that is still to be proved by samples.

    `proof` says what the samples must agree with: the known answer (`gold`), each other (`majority`), or test `cases`
    when they are run (`running`), of which at least `min_cases` must hold. `template` is the prompt of the samples.
    `solution` takes the place of the samples where only the solution is new.
    """

    problem: Problem
    template: PromptTemplate
    proof: Literal["gold", "majority", "running"]
    solution: str | None = None
    cases: tuple[TestCase, ...] = ()
    signature: FunctionSignature | None = None
    min_cases: int = 0

    def prove(self, task: Task, responses: list[str], share: float) -> "Agreement":
        """Return the agreement of at least `share` (0..1) of the responses. Raises `UnusableReply` without one.

        A `solution` must be accepted whatever `share` is; a program must pass the test cases that are left.
        """
        from smallwit.data.agreement import agree_on_gold, agree_on_majority

        if self.proof == "running":
            agreed = self._run(task, responses)
        elif self.proof == "majority":
            agreed = agree_on_majority(task, self.problem, responses)
        else:
            agreed = agree_on_gold(task, self.problem, responses)
        needed = share if self.solution is None else 1.0
        if agreed.share < needed or not agreed.indices:
            raise UnusableReply(f"{agreed.share:.0%} of the answers agree, {needed:.0%} must")
        return agreed

    def _run(self, task: Task, programs: list[str]) -> "Agreement":
        from smallwit.data.agreement import agree_by_running

        assert self.signature is not None
        agreed = agree_by_running(
            self.signature.code, self.signature.name, programs, self.cases, isolation=task.isolation
        )
        if len(agreed.gold) < self.min_cases:
            raise UnusableReply(f"{len(agreed.gold)} tests hold, {self.min_cases} must")
        if all(value == agreed.gold[0][1] for _, value in agreed.gold):
            raise UnusableReply("all tests expect the same value, so a constant would pass")
        return replace(agreed, gold=_gold_of_task(task, self.signature, agreed.gold))


def is_code(task: Task) -> bool:
    """Return whether a task's answers are programs and its gold answers are tests."""
    return task.answer_kind == "code"


def _gold_of_task(task: Task, signature: FunctionSignature, cases: list[TestCase]) -> Any:
    """Return test cases in the form of the task's gold answers."""
    from smallwit.tasks.fenced import FencedTask

    if isinstance(task, FencedTask):
        calls = [f"{signature.name}({', '.join(map(repr, arguments))}) == {value!r}" for arguments, value in cases]
        asserts = [f"assert {call}" for call in calls]
        return {"prompt": signature.code, "entry_point": signature.name, "tests": asserts, "setup": ""}
    return {"entry_point": signature.name, "cases": [[list(arguments), value] for arguments, value in cases]}
