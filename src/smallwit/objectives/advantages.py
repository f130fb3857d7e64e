"""Advantages: how much better a completion, or a token of it, is than expected.

Rewards are `[P, G]`: G samples of each of P problems. A reward that is not known is NaN: it is left out of every
statistic, and its advantage is 0. A group without two different known rewards has no signal: its advantages are exactly
0. Advantages are computed on the whole batch of rollouts, before it is split.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from smallwit.objectives.settings import GroupEstimator

EPSILON = 1e-4
"""Added to a standard deviation before it divides."""


@dataclass(frozen=True)
class _Groups:
    """`known` and `centred` rewards `[P, G]`, their number `count` and whether they are a `signal` `[P, 1]`."""

    known: Tensor
    count: Tensor
    centred: Tensor
    signal: Tensor


def _groups(rewards: Tensor) -> _Groups:
    known = ~rewards.isnan()
    count = known.sum(1, keepdim=True).clamp(min=1)
    values = rewards.nan_to_num(0.0)
    mean = values.sum(1, keepdim=True) / count
    # The mean of equal rewards such as 0.1 is rounded: without `signal`, the rounding would look like a signal.
    signal = has_signal(rewards)[:, None]
    centred = torch.where(known & signal, values - mean, torch.zeros_like(values))
    return _Groups(known, count, centred, signal)


def has_signal(rewards: Tensor) -> Tensor:
    """Return which groups `[P]` of the rewards `[P, G]` have two known rewards that differ."""
    return rewards.nan_to_num(-torch.inf).amax(1) > rewards.nan_to_num(torch.inf).amin(1)


def group_advantages(rewards: Tensor) -> Tensor:
    """Return GRPO's advantages `[P, G]`: (r - mean) / (std + epsilon) within each group (arXiv 2402.03300, eq. 4)."""
    groups = _groups(rewards)
    spread = (groups.centred.square().sum(1, keepdim=True) / (groups.count - 1).clamp(min=1)).sqrt()
    return groups.centred / (spread + EPSILON)


def centred_advantages(rewards: Tensor) -> Tensor:
    """Return Dr. GRPO's advantages `[P, G]`: r - mean within each group (arXiv 2503.20783).

    Without the division, very easy and very hard problems do not weigh more than others.
    """
    return _groups(rewards).centred


def leave_one_out_advantages(rewards: Tensor) -> Tensor:
    """Return RLOO's advantages `[P, G]`: r less the mean of the group's other rewards (arXiv 2402.14740).

    That is (r - mean) * n / (n - 1), n being the number of known rewards of the group.
    """
    groups = _groups(rewards)
    return groups.centred * groups.count / (groups.count - 1).clamp(min=1)


def batch_advantages(rewards: Tensor) -> Tensor:
    """Return REINFORCE++'s advantages with baseline `[P, G]`: (r - mean of the group) / (std of the batch + epsilon).

    (arXiv 2501.03262, REINFORCE++ with baseline.) The batch's mean needs no subtraction: it is 0 once each group's
    is. The deviation is over all known rewards, those of groups without a signal included.
    """
    groups = _groups(rewards)
    count = groups.known.sum().clamp(min=2)
    return groups.centred / ((groups.centred.square().sum() / (count - 1)).sqrt() + EPSILON)


GROUP_ESTIMATORS: Mapping[GroupEstimator, Callable[[Tensor], Tensor]] = {
    "group": group_advantages,
    "centred": centred_advantages,
    "leave_one_out": leave_one_out_advantages,
    "batch": batch_advantages,
}
"""Advantages `[P, G]` from rewards `[P, G]`, by the names that algorithms use."""


def generalised_advantages(rewards: Tensor, values: Tensor, discount: float, decay: float) -> Tensor:
    """Return GAE's advantages `[B, T]` of every token (Schulman et al. 2016, arXiv 1506.02438, eq. 16).

        A_t = sum over k of (discount * decay)^k * delta_(t+k),    delta_t = r_t + discount * V_(t+1) - V_t

    `rewards` and `values` are `[B, T]`, one sequence a row, both padded on the right with zeros. V after the last token
    is 0, so the padding's advantages are 0 too. `discount` and `decay` are the paper's gamma and lambda.
    Raises `ValueError` if the shapes differ.
    """
    if rewards.dim() != 2 or rewards.shape != values.shape:
        raise ValueError(
            f"generalised_advantages needs rewards and values [B, T]; got {list(rewards.shape)}, {list(values.shape)}"
        )
    following = torch.nn.functional.pad(values[:, 1:], (0, 1))
    deltas = rewards + discount * following - values
    advantages = torch.zeros_like(deltas)
    running = torch.zeros_like(deltas[:, 0])
    for place in reversed(range(deltas.shape[1])):
        running = deltas[:, place] + discount * decay * running
        advantages[:, place] = running
    return advantages


def whitened(advantages: Tensor, mask: Tensor) -> Tensor:
    """Return (advantages - mean) / std, both over the true entries of `mask`; 0 elsewhere.

    Both are `[B, T]`. As PPO's implementations do (Ziegler et al. 2019, arXiv 1909.08593).
    """
    count = mask.sum().clamp(min=1)
    mean = (advantages * mask).sum() / count
    centred = (advantages - mean) * mask
    return centred / ((centred.square().sum() / count).sqrt() + EPSILON)
