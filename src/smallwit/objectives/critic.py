"""The loss of PPO, with its critic."""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from smallwit.objectives.advantages import generalised_advantages, whitened
from smallwit.objectives.batch import Example, TokenBatch
from smallwit.objectives.kinds.ppo import PPO
from smallwit.objectives.policy_gradient import clipped_value_loss
from smallwit.objectives.policy_loss import PolicyGradientLoss

ADVANTAGE, RETURN, VALUE, GRADED = "advantage", "return", "value", "graded"
"""Columns of rollouts, per token. `graded` is 0 where the reward is not known, else 1."""


class Critic(torch.nn.Module):
    """A linear value head on the policy's hidden states. It starts at 0, so that it needs no random numbers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(width))
        self.bias = torch.nn.Parameter(torch.zeros(()))

    def forward(self, hidden: Tensor) -> Tensor:
        """Values `[N]` in float32 of the hidden states `[N, H]` that predict each token."""
        # Not a matrix product: autocast would take that in half precision.
        return (hidden.float() * self.weight).sum(1) + self.bias


@dataclass(frozen=True)
class PPOLoss(PolicyGradientLoss):
    """PPO: the critic gives the advantage of each token, and is trained on the same hidden states.

    The critic's clipped loss counts `value_weight` times, in its own weights and in the model's.
    """

    _: KW_ONLY
    algorithm: PPO
    critic: Critic

    @property
    def modules(self) -> Mapping[str, torch.nn.Module]:
        return {f"critic of {self.source}": self.critic}

    def values(self, hidden: Tensor, batch: TokenBatch) -> Tensor:
        """Return the critic's values `[N]` of the hidden states `[N, H]`."""
        values: Tensor = self.critic(hidden)
        return values

    def columns(self, values: Sequence[Tensor], rewards: Tensor) -> tuple[dict[str, Tensor], dict[str, float]]:
        """Return the columns `[B, T]` of B rollouts, and metrics, from the values of their tokens and rewards `[B]`.

        The reward is paid at a completion's last token. A completion whose reward is not known is not `graded`.
        Advantages are whitened over all graded tokens.
        """
        padded = pad_sequence(list(values), batch_first=True)
        lengths = torch.tensor([len(row) for row in values])
        real = torch.arange(padded.shape[1]) < lengths[:, None]
        last = torch.arange(padded.shape[1]) == lengths[:, None] - 1
        graded = real & ~rewards.isnan()[:, None]
        paid = last * rewards.nan_to_num(0.0)[:, None]
        advantages = generalised_advantages(paid, padded, self.algorithm.discount, self.algorithm.decay)
        returns = advantages + padded
        columns = {ADVANTAGE: whitened(advantages, graded), RETURN: returns, VALUE: padded, GRADED: graded.float()}
        return columns, _critic_metrics(padded[graded], returns[graded])

    def advantages(self, batch: TokenBatch) -> Tensor:
        return batch.columns[ADVANTAGE]

    def state_loss(self, hidden: Tensor, batch: TokenBatch) -> Tensor | float:
        values, columns = self.critic(hidden), batch.columns
        loss = clipped_value_loss(values, columns[VALUE], columns[RETURN], self.algorithm.value_clip)
        return self.algorithm.value_weight * loss * columns[GRADED]

    def wants(self, example: Example) -> bool:
        return example.columns[GRADED][0] > 0 or self.algorithm.reference is not None


def _critic_metrics(values: Tensor, returns: Tensor) -> dict[str, float]:
    """Return the mean value, and the share of the returns' variance that the values explain."""
    if not len(returns):
        return {}
    variance = float(returns.var(correction=0))
    explained = {"value_explained": 1.0 - float((returns - values).var(correction=0)) / variance} if variance else {}
    return {"value": float(values.mean())} | explained
