"""The augmentation `evolve`: a harder question, or one of another kind."""

from typing import Literal

from pydantic import Field, model_validator

from smallwit.data.augmentation import (
    AugmentationInput,
    AugmentationMethod,
    majority_proposal,
    question_prompt,
    written_problem,
)
from smallwit.data.generation import PLACES, PromptField, PromptTemplate
from smallwit.data.proposals import Proposal
from smallwit.inference.generator import Reply
from smallwit.tasks.base import Task
from smallwit.tasks.prompt import Prompt

DEPTH = [
    question_prompt("Make this question harder: add one more condition that changes the answer."),
    question_prompt("Make this question harder: ask for something that follows from its present answer."),
    question_prompt("Make this question harder: put particular things and quantities for what is general in it."),
    question_prompt("Make this question harder: one more step of reasoning at least should be needed to answer it."),
]
"""Evol-Instruct's operations in depth (Xu et al. 2023, arXiv 2304.12244), in our own words: add a constraint, deepen,
make concrete, add steps of reasoning."""
BREADTH = [
    question_prompt(
        "Write a question of another kind that belongs to the same field as this one and is about as hard. "
        "It must be complete in itself and have exactly one answer."
    )
]


class Evolve(AugmentationMethod):
    """A harder question, or one of another kind (Evol-Instruct). The majority's answer becomes its gold answer."""

    kind: Literal["evolve"] = Field(description="a harder question, or one of another kind")
    direction: Literal["depth", "breadth"] = Field(
        default="depth", description="depth: a harder question; breadth: a question of another kind"
    )
    prompts: list[PromptField] | None = Field(
        default=None,
        min_length=1,
        description="what the teacher is asked: one is drawn for each problem; smallwit's own if absent",
    )

    @property
    def name(self) -> str:
        """Return the method's name with its direction."""
        return f"{self.kind}-{self.direction}"

    @property
    def templates(self) -> list[PromptTemplate]:
        """Return the recipe's prompts, or the default ones."""
        return self.prompts or (DEPTH if self.direction == "depth" else BREADTH)

    @model_validator(mode="after")
    def _places(self) -> "Evolve":
        for template in self.templates:
            template.require(PLACES, "problem")
        return self

    def prompt_for(self, source: AugmentationInput) -> Prompt:
        """Return the prompt drawn for the problem."""
        return self.templates[source.seed % len(self.templates)].fill(source.values)

    def propose(self, source: AugmentationInput, task: Task, reply: Reply | None) -> Proposal:
        """Return the new problem. Raises `UnusableReply` for a reply without a question, and for a task of programs."""
        return majority_proposal(source, task, written_problem(source, reply))
