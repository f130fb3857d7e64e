"""The objectives that a recipe can name, one entry each."""

from typing import Annotated, Any, Literal

from pydantic import (
    Discriminator,
    Field,
    PositiveFloat,
    PositiveInt,
    Tag,
    field_validator,
    model_validator,
)

from smallwit.objectives.algorithms import ALGORITHMS, Algorithm
from smallwit.recipe.section import Section


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

    teacher: str = Field(
        description="a model of the recipe, an earlier train stage, or a teacher_logprobs stage's store"
    )
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


class Reference(Section):
    """A penalty on the distance to another model, estimated at the sampled tokens; see `objectives/kl_estimates.py`."""

    model: str = Field(description="a model of the recipe, or an earlier stage, with the student's tokenizer")
    weight: PositiveFloat = 0.05
    estimate: Literal["k1", "k2", "k3"] = "k2"


class PolicyGradient(Objective):
    """What the algorithms of reinforcement share. `kind` is a row of `objectives.algorithms.ALGORITHMS`."""

    kind: str
    reference: Reference | None = None
    importance_cap: PositiveFloat | None = Field(
        default=None, description="weigh tokens by min(trainer's / sampler's probability, cap); for engines that differ"
    )

    @property
    def algorithm(self) -> Algorithm:
        """Its row of the table."""
        return ALGORITHMS[self.kind]

    @property
    def bounds(self) -> tuple[float, float]:
        """How far below and above 1 the importance ratio may lie."""
        raise NotImplementedError


class OneClip(PolicyGradient):
    """Algorithms that clip as far below 1 as above; 0.2 is PPO's (arXiv 1707.06347, sec. 6.1)."""

    clip: PositiveFloat = 0.2

    @property
    def bounds(self) -> tuple[float, float]:
        """`clip` twice."""
        return self.clip, self.clip


class TwoClips(PolicyGradient):
    """Algorithms that clip below and above 1 by different amounts."""

    clip_low: PositiveFloat
    clip_high: PositiveFloat

    @property
    def bounds(self) -> tuple[float, float]:
        """`clip_low` and `clip_high`."""
        return self.clip_low, self.clip_high


class GroupPolicy(OneClip):
    kind: Literal["grpo", "dr_grpo", "rloo", "reinforce_pp"]


class DAPO(TwoClips):
    """The clip is the paper's (arXiv 2503.14476, sec. 4.1)."""

    kind: Literal["dapo"]
    clip_low: PositiveFloat = 0.2
    clip_high: PositiveFloat = 0.28


class GSPO(TwoClips):
    """The ratio is a geometric mean, so the clip is narrow: the paper's (arXiv 2507.18071, sec. 5.1)."""

    kind: Literal["gspo"]
    clip_low: PositiveFloat = 3e-4
    clip_high: PositiveFloat = 4e-4


class CISPO(TwoClips):
    """No bound below, as in the paper (arXiv 2506.13585, sec. 3.1), which gives no number above; a weight of at most 5
    is ScaleRL's (arXiv 2510.13786)."""

    kind: Literal["cispo"]
    clip_low: PositiveFloat = 1.0
    clip_high: PositiveFloat = 4.0


class PPO(OneClip):
    """With a critic. The defaults are those of the published code of Ziegler et al. 2019 (arXiv 1909.08593)."""

    kind: Literal["ppo"]
    value_clip: PositiveFloat = 0.2
    value_weight: PositiveFloat = 0.1
    discount: float = Field(default=1.0, gt=0, le=1, description="gamma")
    decay: float = Field(default=0.95, ge=0, le=1, description="lambda of GAE")


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
    | GroupPolicy
    | DAPO
    | GSPO
    | CISPO
    | PPO,
    Field(discriminator="kind"),
]
