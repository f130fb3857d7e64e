"""The augmentations `steps` and `shorten`: another solution of the same problem."""

from typing import Literal

from pydantic import Field, PositiveInt, model_validator

from smallwit.data.augmentation import AugmentationInput, AugmentationMethod
from smallwit.data.generation import PLACES, PromptField, PromptTemplate
from smallwit.data.proposals import Proposal
from smallwit.data.reply_parsing import UnusableReply, parse_solution
from smallwit.inference.generator import Reply
from smallwit.tasks.base import Task
from smallwit.tasks.prompt import Prompt

WORDS_PER_TOKEN = 0.75
STEPS = PromptTemplate(
    user="Here are a question and its short solution. Write the solution out step by step, each step on a line, in "
    "plain words and with every calculation. End exactly as the short solution ends.\n\nQuestion: {problem}\n\n"
    "Short solution: {solution}"
)
SHORTEN = PromptTemplate(
    user="Here are a question and a long solution. Write the shortest solution that still shows each step needed, in "
    "at most {words} words. End exactly as the long solution ends.\n\nQuestion: {problem}\n\nLong solution: {solution}"
)


class Rewrite(AugmentationMethod):
    """Another solution of the same problem. The task's verifier must accept it."""

    kind: Literal["steps", "shorten"] = Field(
        description="steps: write a terse solution out step by step; shorten: make a long one fit max_tokens"
    )
    prompt: PromptField | None = Field(
        default=None,
        description="what the teacher is asked, with the places {problem}, {answer}, {solution}, {words}; smallwit's "
        "own if absent",
    )
    max_tokens: PositiveInt | None = Field(
        default=None, description="tokens of the new solution, at most, by the stage's tokenizer; shorten needs it"
    )

    @property
    def counts_tokens(self) -> bool:
        """Return whether there is a bound in tokens."""
        return self.max_tokens is not None

    @property
    def template(self) -> PromptTemplate:
        """Return the recipe's prompt, or the default one."""
        return self.prompt or (STEPS if self.kind == "steps" else SHORTEN)

    @model_validator(mode="after")
    def _bounded(self) -> "Rewrite":
        if self.kind == "shorten" and self.max_tokens is None:
            raise ValueError("shorten needs max_tokens, the length of a shortened solution")
        self.template.require((*PLACES, "words"), "solution")
        return self

    def prompt_for(self, source: AugmentationInput) -> Prompt:
        """Return the prompt with the solution filled in. Raises `UnusableReply` for a problem without one."""
        if source.problem.solution is None:
            raise UnusableReply("the row has no solution to rewrite")
        words = int((self.max_tokens or 0) * WORDS_PER_TOKEN)
        return self.template.fill(source.values | {"words": str(words)})

    def propose(self, source: AugmentationInput, task: Task, reply: Reply | None) -> Proposal:
        """Return the problem with the new solution.

        Raises `UnusableReply` for a problem without a gold answer, and for a solution that is too long.
        """
        assert reply is not None
        if source.problem.gold is None:
            raise UnusableReply("the row has no gold answer to verify with")
        solution = parse_solution(reply.text, reply.truncated)
        if self.max_tokens is not None and (length := source.count_tokens(solution)) > self.max_tokens:
            raise UnusableReply(f"{length} tokens, at most {self.max_tokens}")
        if self.kind == "shorten" and len(solution) >= len(source.problem.solution or ""):
            raise UnusableReply("not shorter than the solution that was to be shortened")
        return Proposal(source.problem, source.check_prompt, "gold", solution)
