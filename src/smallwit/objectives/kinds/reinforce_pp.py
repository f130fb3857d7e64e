"""REINFORCE++ with baseline."""

from typing import Literal

from smallwit.objectives.policy import SymmetricClip


class ReinforcePP(SymmetricClip):
    """Advantages r - mean of the group, over the batch's std (Hu et al. 2025, REINFORCE++, arXiv 2501.03262)."""

    kind: Literal["reinforce_pp"]
    estimator = "batch"
    aggregation = "sequences"
