"""Group relative policy optimization."""

from typing import Literal

from smallwit.objectives.policy import SymmetricClip


class GRPO(SymmetricClip):
    """Advantages (r - mean) / std within a group (Shao et al. 2024, DeepSeekMath, arXiv 2402.03300)."""

    kind: Literal["grpo"]
    estimator = "group"
    aggregation = "sequences"
