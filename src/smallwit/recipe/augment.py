"""The step `augment` of a `dataset` stage: new problems and new solutions out of those that are there."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, PositiveInt, model_validator

from smallwit.recipe.generation import (
    PLACES,
    Asking,
    Drawing,
    Keep,
    KeepSpec,
    Teacher,
    TeacherSpec,
    Template,
    TemplateSpec,
)
from smallwit.recipe.section import Section

INSTRUCTION = "Please reason step by step, and put your final answer within \\boxed{}."
"""The default protocol's instruction on the form of the answer."""

_MARKED = "Write the {what} alone, between <question> and </question>, without solving it."


def _writes(task: str, what: str = "new question") -> Template:
    return Template(user=f"{task}\n{_MARKED.replace('{what}', what)}\n\nQuestion: {{problem}}")


REPHRASE = _writes(
    "Say this question in other words. Keep every fact and every number, and leave what is asked the same.",
    "rephrased question",
)
DEPTH: dict[str, Template] = {
    "constraint": _writes("Make this question harder: add one more condition that changes the answer."),
    "deepen": _writes("Make this question harder: ask for something that follows from its present answer."),
    "concrete": _writes("Make this question harder: put particular things and quantities for what is general in it."),
    "steps": _writes("Make this question harder: one more step of reasoning at least should be needed to answer it."),
}
"""Evol-Instruct's operations in depth (Xu et al. 2023, arXiv 2304.12244), in our own words."""
BREADTH = _writes(
    "Write a question of another kind that belongs to the same field as this one and is about as hard. "
    "It must be complete in itself and have exactly one answer."
)
STEPS = Template(
    user="Here are a question and its short solution. Write the solution out step by step, each step on a line, in "
    "plain words and with every calculation. End exactly as the short solution ends.\n\nQuestion: {problem}\n\n"
    "Short solution: {solution}"
)
SHORTEN = Template(
    user="Here are a question and a long solution. Write the shortest solution that still shows each step needed, in "
    "at most {words} words. End exactly as the long solution ends.\n\nQuestion: {problem}\n\nLong solution: {solution}"
)
PROGRAM = Template(user="Write this Python function, signature included, and nothing else.\n\n{problem}")
TESTS = Template(
    user="Write tests for this Python function, without writing the function: lines of the form assert "
    "name(arguments) == result with plain values only, usual cases and borderline cases.\n\n{problem}"
)


class Check(Section):
    """How a new problem is proved: independent samples of its solution must agree."""

    draw: Drawing = Drawing()
    share: float = Field(default=0.5, gt=0, le=1, description="of the samples that must agree, at least")
    prompt: TemplateSpec = Template(user="{problem}")

    @model_validator(mode="after")
    def _independent(self) -> "Check":
        self.prompt.require(PLACES[:1], "problem")
        if self.draw.samples < 2:
            raise ValueError("a check needs at least 2 samples that can agree")
        return self


class Rephrase(Section):
    """The same question in other words; samples must agree with the known answer."""

    kind: Literal["rephrase"]
    prompt: TemplateSpec = REPHRASE


class Backward(Section):
    """A number is hidden and the answer told. No model writes these; samples must agree with the hidden number."""

    kind: Literal["backward", "self_verification"]


class Evolve(Section):
    """A harder question, or one of another kind; the majority of the samples is its answer."""

    kind: Literal["evolve"]
    direction: Literal["depth", "breadth"] = "depth"
    prompts: list[TemplateSpec] | None = Field(default=None, min_length=1, description="one is drawn for each problem")

    @property
    def templates(self) -> list[Template]:
        """The prompts, or ours."""
        return self.prompts or (list(DEPTH.values()) if self.direction == "depth" else [BREADTH])


class Rewrite(Section):
    """Another solution of the same problem, which the task's verifier must accept.

    `steps` writes a terse one out; `shorten` makes a long one fit `max_tokens` of the stage's tokenizer.
    """

    kind: Literal["steps", "shorten"]
    prompt: TemplateSpec | None = None
    max_tokens: PositiveInt | None = Field(default=None, description="of the new solution; `shorten` needs it")

    @property
    def template(self) -> Template:
        """The prompt, or ours."""
        return self.prompt or (STEPS if self.kind == "steps" else SHORTEN)

    @model_validator(mode="after")
    def _bounded(self) -> "Rewrite":
        if self.kind == "shorten" and self.max_tokens is None:
            raise ValueError("shorten needs max_tokens, the length that solutions are brought to")
        return self


class Tested(Section):
    """Programs and tests for a function known by its docstring; they must agree when run.

    `functions` lets the teacher write programs and tests; `tests` takes the row's own program and writes tests alone.
    """

    kind: Literal["functions", "tests"]
    prompt: TemplateSpec = PROGRAM
    tests: TemplateSpec = TESTS
    least: PositiveInt = Field(default=3, description="tests that a function must have in the end")


WaySpec = Annotated[Rephrase | Backward | Evolve | Rewrite | Tested, Field(discriminator="kind")]


class Augment(Asking):
    """Make new rows of each row, in every way that is named; what cannot be proved is dropped, with the reason."""

    kind: Literal["augment"]
    teacher: Teacher
    ways: list[WaySpec] = Field(min_length=1)
    max_new_tokens: PositiveInt = Field(default=512, description="of what the teacher writes")
    temperature: float = Field(default=0.7, ge=0, description="at which the teacher writes")
    check: Check = Check()
    keep: KeepSpec = Keep(rule="shortest")
    originals: bool = Field(default=True, description="let the rows themselves pass too, before what was made of them")
    instruction: str = Field(
        default=INSTRUCTION, description="the end of a prompt that is not part of the question; it stays as it is"
    )

    @property
    def asked(self) -> Sequence[TeacherSpec]:
        """The teacher."""
        return (self.teacher,)

    @property
    def counts_tokens(self) -> bool:
        """Whether a way has a bound in tokens."""
        return any(isinstance(way, Rewrite) and way.max_tokens is not None for way in self.ways)

    @property
    def judges(self) -> bool:
        """It asks the verifiers."""
        return True

    @model_validator(mode="after")
    def _places(self) -> "Augment":
        for way in self.ways:
            if isinstance(way, Rephrase):
                way.prompt.require(PLACES, "problem")
            elif isinstance(way, Evolve):
                for template in way.templates:
                    template.require(PLACES, "problem")
            elif isinstance(way, Rewrite):
                way.template.require((*PLACES, "words"), "solution")
            elif isinstance(way, Tested):
                way.prompt.require(PLACES[:1], "problem")
                way.tests.require(PLACES[:1], "problem")
        return self
