"""REINFORCE with leave-one-out baselines."""

from typing import Literal

from smallwit.objectives.policy import SymmetricClip


class RLOO(SymmetricClip):
    """One ratio for the whole completion (Ahmadian et al. 2024, Back to Basics, arXiv 2402.14740)."""

    kind: Literal["rloo"]
    estimator = "leave_one_out"
    ratio = "episode"
    aggregation = "sequences"
