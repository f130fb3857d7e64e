"""Proximal policy optimization with a critic."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, PositiveFloat

from smallwit.objectives.policy import SymmetricClip, rollout_arguments
from smallwit.objectives.settings import SourceProtocol

if TYPE_CHECKING:
    from smallwit.objectives.critic import PPOLoss


class PPO(SymmetricClip):
    """Advantages of each token by a critic (Schulman et al. 2017, arXiv 1707.06347).

    The defaults are those of the published code of Ziegler et al. 2019 (arXiv 1909.08593).
    """

    kind: Literal["ppo"]
    estimator = "gae"
    aggregation = "tokens"

    value_clip: PositiveFloat = Field(
        default=0.2, description="distance from the old value at which values are clipped"
    )
    value_weight: PositiveFloat = Field(default=0.1, description="weight of the critic's loss")
    discount: float = Field(default=1.0, gt=0, le=1, description="gamma")
    decay: float = Field(default=0.95, ge=0, le=1, description="lambda of GAE")

    def build(self, source: SourceProtocol, hidden_size: int) -> PPOLoss:
        from smallwit.objectives.critic import Critic, PPOLoss

        critic = Critic(hidden_size)
        return PPOLoss(**self.loss_arguments(), **rollout_arguments(source), critic=critic)
