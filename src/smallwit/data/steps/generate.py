"""The step `generate`: teachers answer the problems, one row a reply."""

from collections.abc import Iterator, Sequence
from typing import Literal

from pydantic import Field, model_validator

from smallwit.data.context import StepContext
from smallwit.data.generation import (
    PLACES,
    PROBLEM,
    GenerationStep,
    PromptField,
    SamplingParams,
    TeacherField,
    TeacherModel,
    row_prompt,
    sample_seed,
)
from smallwit.data.row_access import batched, with_completion
from smallwit.inference.generator import GenerationRequest
from smallwit.rows import Row
from smallwit.seeds import stable_seed


class Generate(GenerationStep):
    """Let teachers answer every problem: one row a reply.

    Rows without any reply are dropped by the rules `budget` (it is spent) or `no-reply`.
    """

    kind: Literal["generate"] = Field(description="let teachers answer the problems, one row a reply")
    teachers: list[TeacherField] = Field(min_length=1, description="the models that answer")
    division: Literal["share", "each"] = Field(
        default="share", description="share: a problem goes to one of the teachers; each: to all of them"
    )
    prompt: PromptField = Field(
        default=PROBLEM, description="what the teachers are asked, with the places {problem}, {answer}, {solution}"
    )
    draw: SamplingParams = Field(default=SamplingParams(), description="how replies are sampled")

    @property
    def teachers_used(self) -> Sequence[TeacherModel]:
        """Return the teachers."""
        return self.teachers

    @property
    def depends_on_seed(self) -> bool:
        """Return whether replies are sampled."""
        return self.draw.temperature > 0

    @model_validator(mode="after")
    def _distinct_teachers(self) -> "Generate":
        self.prompt.require(PLACES, "problem")
        names = [teacher.model for teacher in self.teachers]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"teacher {name} is named twice; take more samples instead")
        return self

    def smoke(self, problems: int, max_new_tokens: int) -> "Generate":
        """Return the step with two short samples."""
        few = {"samples": 2, "max_new_tokens": max_new_tokens, "temperature": 1.0}
        return self.model_copy(update={"draw": self.draw.model_copy(update=few)})

    def teachers_for(self, row: Row) -> Sequence[str]:
        """Return the names of all teachers, or of the one for the row's problem: a pure function of its id."""
        names = [teacher.model for teacher in self.teachers]
        return names if self.division == "each" else [names[stable_seed("teacher", row["id"]) % len(names)]]

    def rows(self, rows: Iterator[Row], context: StepContext) -> Iterator[Row]:
        """Yield each row once for every sample, with `completion`, `teacher`, `sample`, `truncated`."""
        seed, decoding = context.resources.seed, self.draw.decoding
        with self.client(context) as client:
            for batch in batched(rows, max(1, client.window // (self.draw.samples * len(self.teachers)))):
                wanted = [
                    (row, teacher, sample)
                    for row in batch
                    for teacher in self.teachers_for(row)
                    for sample in range(self.draw.samples)
                ]
                requests = [
                    GenerationRequest(teacher, row_prompt(row, self.prompt), decoding, sample_seed(seed, row, sample))
                    for row, teacher, sample in wanted
                ]
                answered: set[int] = set()
                for (row, teacher, sample), reply in zip(wanted, client.generate(requests), strict=False):
                    if reply is None:
                        continue
                    answered.add(id(row))
                    about = {"teacher": teacher, "sample": sample, "truncated": reply.truncated}
                    yield with_completion(row, reply.text) | about
                for row in batch:
                    if id(row) not in answered:
                        context.drop(row, *client.missing_reason())
