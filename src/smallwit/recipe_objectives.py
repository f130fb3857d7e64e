"""The objectives that a recipe can name, one entry each."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat

from smallwit.objectives.algorithms import ALGORITHMS, Algorithm


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
    CrossEntropy | ForwardKL | ReverseKL | GroupPolicy | DAPO | GSPO | CISPO | PPO, Field(discriminator="kind")
]
