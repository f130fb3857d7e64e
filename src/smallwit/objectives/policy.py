"""Settings that all policy-gradient algorithms share. An algorithm is a choice of four parts:

how rewards become advantages, the level of the importance ratio, the clip rule, and the aggregation of token losses.
The mathematics of the parts is in `advantages` and `policy_gradient`, which need torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, PositiveFloat

from smallwit.objectives.kl_estimates import KLEstimate
from smallwit.objectives.settings import Objective, RolloutSettings, SourceProtocol
from smallwit.recipe.section import Section

if TYPE_CHECKING:
    from smallwit.objectives.policy_loss import PolicyGradientLoss
    from smallwit.recipe.check import Check

RatioLevel = Literal["token", "sequence", "episode"]
ClipRule = Literal["surrogate", "weight"]
Aggregation = Literal["sequences", "tokens", "constant"]


class Reference(Section):
    """A KL penalty on the distance to a reference model, estimated at the sampled tokens; see `kl_estimates`."""

    model: str = Field(description="a model of the recipe, or an earlier stage, with the student's tokenizer")
    weight: PositiveFloat = Field(default=0.05, description="weight of the penalty (beta)")
    estimate: KLEstimate = Field(default="k2", description="estimator of the KL divergence")

    @property
    def column(self) -> str:
        """Name of the column of rollouts that holds the model's log-probs."""
        return f"log_probs of {self.model}"


class PolicyGradient(Objective):
    """Base class of policy-gradient algorithms.

    `estimator`: from rewards to advantages; `gae` needs a critic. `ratio`: of each token, of the sequence per token (a
    geometric mean), or of the whole episode (a product). `clip_rule`: the lesser of the plain and the clipped
    surrogate, or a clipped and detached weight of the log-likelihood. `aggregation`: the mean of the sequences' means,
    the mean over all tokens, or the sum divided by sequences times `max_new_tokens`.
    """

    ratio: ClassVar[RatioLevel] = "token"
    clip_rule: ClassVar[ClipRule] = "surrogate"
    aggregation: ClassVar[Aggregation]

    reference: Reference | None = Field(default=None, description="penalty on the distance to a reference model")
    importance_cap: PositiveFloat | None = Field(
        default=None,
        description="weigh tokens by min(trainer's / sampler's probability, cap); for engines that differ; 2 if absent "
        "where the source has ahead: 1",
    )

    @property
    def clip_range(self) -> tuple[float, float]:
        """How far below and above 1 the importance ratio may lie."""
        raise NotImplementedError

    @property
    def references(self) -> Sequence[str]:
        return () if self.reference is None else (self.reference.model,)

    def check_source(self, source: SourceProtocol) -> None:
        if not isinstance(source, RolloutSettings):
            raise ValueError(f"{self.kind} needs a source of rollouts; '{self.source}' is {source.kind}")
        if self.estimator != "gae" and source.group == 1:
            raise ValueError(
                f"{self.kind} compares completions of one problem; give source '{self.source}' a group > 1"
            )

    def check(self, check: Check, *place: str | int) -> None:
        for name in self.references:
            check.model_before("reference", name, *place, "reference", "model")

    def loss_arguments(self) -> dict[str, Any]:
        return super().loss_arguments() | {"algorithm": self}

    def build(self, source: SourceProtocol, hidden_size: int) -> PolicyGradientLoss:
        from smallwit.objectives.policy_loss import PolicyGradientLoss

        return PolicyGradientLoss(**self.loss_arguments(), **rollout_arguments(source))


def rollout_arguments(source: SourceProtocol) -> dict[str, Any]:
    """Return the arguments that a `PolicyGradientLoss` takes from its source of rollouts."""
    assert isinstance(source, RolloutSettings)  # checked when the recipe was read
    return {
        "temperature": source.temperature,
        "max_new_tokens": source.max_new_tokens,
        "updates": source.updates,
        "ahead": source.ahead,
    }


ClipLow = Annotated[PositiveFloat, Field(description="distance below 1 at which the importance ratio is clipped")]
ClipHigh = Annotated[PositiveFloat, Field(description="distance above 1 at which the importance ratio is clipped")]


class SymmetricClip(PolicyGradient):
    """Base class of algorithms that clip as far below 1 as above; 0.2 is PPO's (arXiv 1707.06347, sec. 6.1)."""

    clip: PositiveFloat = Field(default=0.2, description="distance from 1 at which the importance ratio is clipped")

    @property
    def clip_range(self) -> tuple[float, float]:
        return self.clip, self.clip


class AsymmetricClip(PolicyGradient):
    """Base class of algorithms that clip below and above 1 by different amounts."""

    clip_low: ClipLow
    clip_high: ClipHigh

    @property
    def clip_range(self) -> tuple[float, float]:
        return self.clip_low, self.clip_high
