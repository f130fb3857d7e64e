"""Clipped importance sampling policy optimization."""

from typing import Literal

from pydantic import Field, PositiveFloat

from smallwit.objectives.policy import AsymmetricClip


class CISPO(AsymmetricClip):
    """The clipped ratio weights the log-likelihood (MiniMax 2025, MiniMax-M1, arXiv 2506.13585).

    No bound below, as in the paper (sec. 3.1), which gives no number above. A weight of at most 5 is ScaleRL's (arXiv
    2510.13786).
    """

    kind: Literal["cispo"]
    estimator = "group"
    clip_rule = "weight"
    aggregation = "tokens"

    clip_low: PositiveFloat = Field(
        default=1.0, description="distance below 1 at which the importance ratio is clipped"
    )
    clip_high: PositiveFloat = Field(
        default=4.0, description="distance above 1 at which the importance ratio is clipped"
    )
