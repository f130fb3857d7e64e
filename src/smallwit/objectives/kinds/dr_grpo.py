"""GRPO without its biases in length and difficulty."""

from typing import Literal

from smallwit.objectives.policy import SymmetricClip


class DrGRPO(SymmetricClip):
    """Advantages r - mean, constant normaliser (Liu et al. 2025, R1-Zero-Like Training, arXiv 2503.20783)."""

    kind: Literal["dr_grpo"]
    estimator = "centred"
    aggregation = "constant"
