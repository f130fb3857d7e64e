"""The objectives that a recipe can name, one entry each."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat


class Section(BaseModel):
    """A part of the recipe; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Objective(Section):
    """What every objective has: the source whose tokens it reads, and its weight (lambda)."""

    source: str
    weight: PositiveFloat = 1.0


class CrossEntropy(Objective):
    kind: Literal["cross_entropy"]


class ForwardKL(Objective):
    kind: Literal["forward_kl"]
    teacher: str
    temperature: PositiveFloat = 1.0


class ReverseKL(Objective):
    kind: Literal["reverse_kl"]
    teacher: str
    temperature: PositiveFloat = 1.0


class GRPO(Objective):
    kind: Literal["grpo"]
    clip: PositiveFloat = 0.2


ObjectiveSpec = Annotated[CrossEntropy | ForwardKL | ReverseKL | GRPO, Field(discriminator="kind")]
