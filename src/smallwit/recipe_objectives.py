"""The objectives that a recipe can name, one entry each."""

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    PositiveFloat,
    PositiveInt,
    Tag,
    field_validator,
    model_validator,
)


class Section(BaseModel):
    """A part of the recipe; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class WeightSchedule(Section):
    """A weight that changes over the stage: `from` at its start, `to` when its budget (steps or FLOPs) is spent."""

    from_: float = Field(alias="from", ge=0)
    to: float = Field(ge=0)
    shape: Literal["linear", "cosine"] = "linear"

    @model_validator(mode="after")
    def _some_weight(self) -> "WeightSchedule":
        if self.from_ == self.to:
            raise ValueError(
                f"goes from {self.from_:g} to {self.to:g}; give a single number, or leave the objective out"
            )
        return self


def _weight_tag(value: Any) -> str:
    return "schedule" if isinstance(value, dict | WeightSchedule) else "number"


Weight = Annotated[
    Annotated[PositiveFloat, Tag("number")] | Annotated[WeightSchedule, Tag("schedule")], Discriminator(_weight_tag)
]


class Objective(Section):
    """What every objective has: the source whose tokens it reads, and its weight (lambda)."""

    source: str
    weight: Weight = 1.0


class CrossEntropy(Objective):
    kind: Literal["cross_entropy"]


class Distillation(Objective):
    """A divergence between the student's and a teacher's next-token distributions."""

    teacher: str = Field(description="a model of the recipe, an earlier train stage, or a teach stage's store")
    temperature: PositiveFloat = 1.0
    top_k: PositiveInt | None = Field(
        default=None, description="compare on the teacher's likeliest tokens and one bucket for all others"
    )


class ForwardKL(Distillation):
    kind: Literal["forward_kl"]


class ReverseKL(Distillation):
    kind: Literal["reverse_kl"]


class JensenShannon(Distillation):
    kind: Literal["jsd"]
    beta: float = Field(default=0.5, description="the teacher's share of the mixture; near 0 forward, near 1 reverse")

    @field_validator("beta")
    @classmethod
    def _inside(cls, beta: float) -> float:
        if not 0 < beta < 1:
            raise ValueError(
                f"lies between 0 and 1, got {beta:g}; at the ends the divergence is 0: use forward_kl (0) "
                "or reverse_kl (1)"
            )
        return beta


Skew = Annotated[float, Field(gt=0, lt=1, description="share of the other distribution that is mixed in")]


class SkewForwardKL(Distillation):
    kind: Literal["skew_forward_kl"]
    alpha: Skew = 0.1


class SkewReverseKL(Distillation):
    kind: Literal["skew_reverse_kl"]
    alpha: Skew = 0.1


class AdaptiveKL(Distillation):
    kind: Literal["adaptive_kl"]


class TotalVariation(Distillation):
    kind: Literal["total_variation"]


class ULD(Distillation):
    """For a teacher with another tokenizer: the distance of the sorted probabilities."""

    kind: Literal["uld"]

    @field_validator("top_k")
    @classmethod
    def _all(cls, top_k: int | None) -> int | None:
        if top_k is not None:
            raise ValueError("uld compares all probabilities by rank; leave top_k out")
        return top_k


class GRPO(Objective):
    kind: Literal["grpo"]
    clip: PositiveFloat = 0.2


ObjectiveSpec = Annotated[
    CrossEntropy
    | ForwardKL
    | ReverseKL
    | JensenShannon
    | SkewForwardKL
    | SkewReverseKL
    | AdaptiveKL
    | TotalVariation
    | ULD
    | GRPO,
    Field(discriminator="kind"),
]
