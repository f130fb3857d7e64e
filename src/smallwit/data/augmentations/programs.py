"""The augmentations `functions` and `tests`: programs and tests for a function known by its docstring."""

from typing import Literal

from pydantic import Field, PositiveInt, model_validator

from smallwit.data.augmentation import AugmentationInput, AugmentationMethod
from smallwit.data.generation import PLACES, PromptField, PromptTemplate
from smallwit.data.proposals import Proposal
from smallwit.data.reply_parsing import UnusableReply, parse_signature, parse_test_cases
from smallwit.inference.generator import Reply
from smallwit.tasks.base import Task
from smallwit.tasks.prompt import Prompt

PROGRAM = PromptTemplate(user="Write this Python function, signature included, and nothing else.\n\n{problem}")
TESTS = PromptTemplate(
    user="Write tests for this Python function, without writing the function: lines of the form assert "
    "name(arguments) == result with plain values only, usual cases and borderline cases.\n\n{problem}"
)


class ProgramsAndTests(AugmentationMethod):
    """Programs and tests for a function known by its docstring. They must agree when they are run."""

    kind: Literal["functions", "tests"] = Field(
        description="functions: the teacher writes programs and tests; tests: it writes tests of the row's own program"
    )
    prompt: PromptField = Field(default=PROGRAM, description="prompt for programs, with the place {problem}")
    tests: PromptField = Field(default=TESTS, description="prompt for tests, with the place {problem}")
    least: PositiveInt = Field(default=3, description="tests that a function must have in the end, at least")

    @model_validator(mode="after")
    def _places(self) -> "ProgramsAndTests":
        for template in (self.prompt, self.tests):
            template.require(PLACES[:1], "problem")
        return self

    def prompt_for(self, source: AugmentationInput) -> Prompt:
        """Return the prompt for tests. Raises `UnusableReply` for a problem that asks for no function."""
        parse_signature(source.problem.prompt)
        return self.tests.fill({"problem": source.problem.prompt})

    def propose(self, source: AugmentationInput, task: Task, reply: Reply | None) -> Proposal:
        """Return the problem with the teacher's tests. Raises `UnusableReply` without tests or without a program."""
        assert reply is not None
        problem = source.problem
        signature = parse_signature(problem.prompt)
        cases = tuple(parse_test_cases(reply.text, signature))
        own = problem.solution if self.kind == "tests" else None
        if self.kind == "tests" and own is None:
            raise UnusableReply("the row has no program to test")
        return Proposal(problem, self.prompt, "running", own, cases, signature, self.least)
