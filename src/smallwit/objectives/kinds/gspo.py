"""Group sequence policy optimization."""

from typing import Literal

from pydantic import Field, PositiveFloat

from smallwit.objectives.policy import AsymmetricClip


class GSPO(AsymmetricClip):
    """One ratio for each sequence (Zheng et al. 2025, Group Sequence Policy Optimization, arXiv 2507.18071).

    The ratio is a geometric mean, so the clip is narrow: the paper's (sec. 5.1).
    """

    kind: Literal["gspo"]
    estimator = "group"
    ratio = "sequence"
    aggregation = "sequences"

    clip_low: PositiveFloat = Field(
        default=3e-4, description="distance below 1 at which the importance ratio is clipped"
    )
    clip_high: PositiveFloat = Field(
        default=4e-4, description="distance above 1 at which the importance ratio is clipped"
    )
