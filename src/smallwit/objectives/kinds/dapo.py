"""Decoupled clip and dynamic sampling policy optimization."""

from typing import Literal

from pydantic import Field, PositiveFloat

from smallwit.objectives.policy import AsymmetricClip


class DAPO(AsymmetricClip):
    """GRPO with a higher clip above, averaged over tokens (Yu et al. 2025, DAPO, arXiv 2503.14476, sec. 4.1)."""

    kind: Literal["dapo"]
    estimator = "group"
    aggregation = "tokens"

    clip_low: PositiveFloat = Field(
        default=0.2, description="distance below 1 at which the importance ratio is clipped"
    )
    clip_high: PositiveFloat = Field(
        default=0.28, description="distance above 1 at which the importance ratio is clipped"
    )
