"""What a way of augmenting makes of a row before it is proved: a draft, or the reason why there is none."""

from dataclasses import dataclass, replace
from typing import Any, Literal

from smallwit.data.agreement import Agreed, Case, agree_by_running, agree_on_gold, agree_on_majority
from smallwit.data.masking import backward, self_verification, split_instruction
from smallwit.data.reading_replies import (
    Signature,
    Unusable,
    read_cases,
    read_question,
    read_signature,
    read_solution,
)
from smallwit.inference.generator import Prompt, Reply
from smallwit.recipe.augment import Augment, Backward, Evolve, Rephrase, Rewrite, Tested, WaySpec
from smallwit.recipe.generation import Template
from smallwit.seeds import stable_seed
from smallwit.tasks.base import Problem, Task
from smallwit.tasks.fenced import FencedTask

WORDS_A_TOKEN = 0.75


@dataclass(frozen=True)
class Draft:
    """A problem with its proof still to come.

    `proof` says what samples must agree on: the known answer (`gold`), each other (`majority`), or `cases` when they
    are run (`running`), of which `least` must hold. `solution` stands in for samples where only the solution is new;
    `template` is what samples are asked with.
    """

    problem: Problem
    template: Template
    proof: Literal["gold", "majority", "running"]
    solution: str | None = None
    cases: tuple[Case, ...] = ()
    signature: Signature | None = None
    least: int = 0

    def prove(self, task: Task, responses: list[str], share: float) -> Agreed:
        """What at least `share` of the responses agree on. Raises `Unusable` where they do not.

        A solution that stands in for samples must be accepted whatever `share` is; a program must pass what tests are
        left.
        """
        if self.proof == "running":
            agreed = self._run(task, responses)
        elif self.proof == "majority":
            agreed = agree_on_majority(task, self.problem, responses)
        else:
            agreed = agree_on_gold(task, self.problem, responses)
        needed = share if self.solution is None else 1.0
        if agreed.share < needed or not agreed.places:
            raise Unusable(f"{agreed.share:.0%} of the answers agree, {needed:.0%} must")
        return agreed

    def _run(self, task: Task, programs: list[str]) -> Agreed:
        assert self.signature is not None
        agreed = agree_by_running(
            self.signature.code, self.signature.name, programs, self.cases, isolation=task.isolation
        )
        if len(agreed.gold) < self.least:
            raise Unusable(f"{len(agreed.gold)} tests hold, {self.least} must")
        if all(value == agreed.gold[0][1] for _, value in agreed.gold):
            raise Unusable("all tests expect the same value, so a constant would pass")
        return replace(agreed, gold=_tests(task, self.signature, agreed.gold))


def way_name(way: WaySpec) -> str:
    """What a way is called in ids and in the card."""
    return f"evolve-{way.direction}" if isinstance(way, Evolve) else way.kind


def writing_prompt(way: WaySpec, spec: Augment, problem: Problem, seed: int) -> Prompt | None:
    """What the teacher is asked to write first; `None` for what no model writes.

    Raises `Unusable` for a problem that the way can do nothing with.
    """
    if isinstance(way, Backward):
        return None
    if isinstance(way, Tested):
        read_signature(problem.prompt)
        return way.tests.fill({"problem": problem.prompt})
    values = _values(problem, spec.instruction)
    if isinstance(way, Rewrite):
        if problem.solution is None:
            raise Unusable("the row has no solution to rewrite")
        return way.template.fill(values | {"words": str(int((way.max_tokens or 0) * WORDS_A_TOKEN))})
    if isinstance(way, Rephrase):
        return way.prompt.fill(values)
    return way.templates[seed % len(way.templates)].fill(values)


def draft_of(way: WaySpec, spec: Augment, task: Task, problem: Problem, reply: Reply | None, seed: int) -> Draft:
    """The draft that a way makes of a problem and of what the teacher wrote. Raises `Unusable` with the reason."""
    if isinstance(way, Backward):
        return _backward(way, spec, problem, seed)
    assert reply is not None
    if isinstance(way, Rewrite):
        if problem.gold is None:
            raise Unusable("the row has no gold answer to verify with")
        return Draft(problem, spec.check.prompt, "gold", read_solution(reply.text, reply.truncated))
    if isinstance(way, Tested):
        signature = read_signature(problem.prompt)
        cases = tuple(read_cases(reply.text, signature))
        own = problem.solution if way.kind == "tests" else None
        if way.kind == "tests" and own is None:
            raise Unusable("the row has no program to test")
        return Draft(problem, way.prompt, "running", own, cases, signature, way.least)
    question, tail = split_instruction(problem.prompt, spec.instruction)
    written = replace(problem, prompt=read_question(reply.text, reply.truncated, question) + tail, solution=None)
    if isinstance(way, Rephrase) and problem.gold is not None:
        return Draft(written, spec.check.prompt, "gold")
    if is_code(task):
        raise Unusable("a function's answer is no text to agree on")
    return Draft(replace(written, gold=None), spec.check.prompt, "majority")


def is_code(task: Task) -> bool:
    """Whether a task's answers are programs, whose gold are tests."""
    return task.answer_kind == "code"


def _backward(way: Backward, spec: Augment, problem: Problem, seed: int) -> Draft:
    if not isinstance(problem.gold, str | int | float):
        raise Unusable("the answer is no text that could be told")
    question, tail = split_instruction(problem.prompt, spec.instruction)
    make = backward if way.kind == "backward" else self_verification
    masked = make(question, str(problem.gold), seed)
    if masked is None:
        raise Unusable("the question has no number to hide")
    made = Problem(problem.id, masked.question + tail, masked.hidden)
    return Draft(made, spec.check.prompt, "gold")


def _values(problem: Problem, instruction: str) -> dict[str, str]:
    question, _ = split_instruction(problem.prompt, instruction)
    answer = "" if problem.gold is None else str(problem.gold)
    return {"problem": question, "answer": answer, "solution": problem.solution or ""}


def _tests(task: Task, signature: Signature, cases: list[Case]) -> Any:
    """Tests as the task keeps them."""
    if isinstance(task, FencedTask):
        calls = [f"{signature.name}({', '.join(map(repr, arguments))}) == {value!r}" for arguments, value in cases]
        asserts = [f"assert {call}" for call in calls]
        return {"prompt": signature.code, "entry_point": signature.name, "tests": asserts, "setup": ""}
    return {"entry_point": signature.name, "cases": [[list(arguments), value] for arguments, value in cases]}


def draft_seed(seed: int, way: WaySpec, row_id: str) -> int:
    """What a way draws for a row (which number to hide, which prompt) is a pure function of (seed, way, problem)."""
    return stable_seed(seed, "augment", way_name(way), row_id)
