"""The base of the methods of the step `augment`, and what they work with."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

from smallwit.data.generation import PromptTemplate
from smallwit.data.masking import split_instruction
from smallwit.data.proposals import Proposal, is_code
from smallwit.data.reply_parsing import UnusableReply, parse_question
from smallwit.inference.generator import Reply
from smallwit.recipe.section import Section
from smallwit.tasks.base import Problem, Task
from smallwit.tasks.prompt import Prompt

_MARKED = "Write the {what} alone, between <question> and </question>, without solving it."


@dataclass(frozen=True)
class AugmentationInput:
    """A problem to augment: the method's seed for it, the prompt that proves the result, and a token counter.

    `question` is the prompt without the instruction on the answer's format, `instruction` that instruction.
    """

    problem: Problem
    question: str
    instruction: str
    seed: int
    check_prompt: PromptTemplate
    count_tokens: Callable[[str], int]

    @classmethod
    def of(
        cls,
        problem: Problem,
        instruction: str,
        seed: int,
        check_prompt: PromptTemplate,
        count_tokens: Callable[[str], int],
    ) -> "AugmentationInput":
        """Return the input for a problem whose prompt may end with `instruction`."""
        question, rest = split_instruction(problem.prompt, instruction)
        return cls(problem, question, rest, seed, check_prompt, count_tokens)

    @property
    def values(self) -> dict[str, str]:
        """Return the values of a prompt's placeholders."""
        answer = "" if self.problem.gold is None else str(self.problem.gold)
        return {"problem": self.question, "answer": answer, "solution": self.problem.solution or ""}


class AugmentationMethod(Section):
    """A method of making new rows: its settings, the prompt to the teacher, and the proposal made of its reply.

    A subclass with a field `kind: Literal["..."]`, in a module of `smallwit.data.augmentations`, is a method that
    recipes can name.
    """

    kinds_in: ClassVar[tuple[str, ...]] = ("smallwit.data.augmentations",)

    @property
    def name(self) -> str:
        """Return the method's name in ids and in the card."""
        return str(self.kind)  # type: ignore[attr-defined]

    @property
    def counts_tokens(self) -> bool:
        """Return whether the method needs a tokenizer."""
        return False

    def prompt_for(self, source: AugmentationInput) -> Prompt | None:
        """Return the prompt to the teacher; `None` for a method that needs no teacher.

        Raises `UnusableReply` for a problem that the method cannot use.
        """
        raise NotImplementedError

    def propose(self, source: AugmentationInput, task: Task, reply: Reply | None) -> Proposal:
        """Return the proposal made of a problem and of the teacher's reply. Raises `UnusableReply` with the reason."""
        raise NotImplementedError


def question_prompt(task: str, what: str = "new question") -> PromptTemplate:
    """Return a prompt that asks a teacher to write a question between marks."""
    return PromptTemplate(user=f"{task}\n{_MARKED.replace('{what}', what)}\n\nQuestion: {{problem}}")


def written_problem(source: AugmentationInput, reply: Reply | None) -> Problem:
    """Return the problem with the question that the teacher wrote. Raises `UnusableReply` for a reply without one."""
    assert reply is not None
    question = parse_question(reply.text, reply.truncated, source.question)
    return replace(source.problem, prompt=question + source.instruction, solution=None)


def majority_proposal(source: AugmentationInput, task: Task, problem: Problem) -> Proposal:
    """Return a proposal whose gold answer is the majority's. Raises `UnusableReply` for a task of programs."""
    if is_code(task):
        raise UnusableReply("a function's answer is no text to agree on")
    return Proposal(replace(problem, gold=None), source.check_prompt, "majority")
