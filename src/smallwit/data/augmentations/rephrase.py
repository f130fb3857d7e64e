"""The augmentation `rephrase`: the same question in other words."""

from typing import Literal

from pydantic import Field, model_validator

from smallwit.data.augmentation import (
    AugmentationInput,
    AugmentationMethod,
    majority_proposal,
    question_prompt,
    written_problem,
)
from smallwit.data.generation import PLACES, PromptField
from smallwit.data.proposals import Proposal
from smallwit.inference.generator import Reply
from smallwit.tasks.base import Task
from smallwit.tasks.prompt import Prompt

_PROMPT = question_prompt(
    "Say this question in other words. Keep every fact and every number, and leave what is asked the same.",
    "rephrased question",
)


class Rephrase(AugmentationMethod):
    """The same question in other words. Samples must agree with the known answer."""

    kind: Literal["rephrase"] = Field(description="the same question in other words")
    prompt: PromptField = Field(
        default=_PROMPT, description="what the teacher is asked, with the places {problem}, {answer}, {solution}"
    )

    @model_validator(mode="after")
    def _places(self) -> "Rephrase":
        self.prompt.require(PLACES, "problem")
        return self

    def prompt_for(self, source: AugmentationInput) -> Prompt:
        """Return the prompt with the problem filled in."""
        return self.prompt.fill(source.values)

    def propose(self, source: AugmentationInput, task: Task, reply: Reply | None) -> Proposal:
        """Return the rephrased problem with the known answer; without one the majority's answer becomes gold."""
        problem = written_problem(source, reply)
        if problem.gold is None:
            return majority_proposal(source, task, problem)
        return Proposal(problem, source.check_prompt, "gold")
