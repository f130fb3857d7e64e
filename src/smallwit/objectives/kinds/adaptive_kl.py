"""Adaptive KL divergence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from smallwit.objectives.distillation import Distillation

if TYPE_CHECKING:
    from torch import Tensor

    from smallwit.objectives.teacher import Distributions


HEAD_MASS = 0.5
"""mu of the paper."""


class AdaptiveKL(Distillation):
    """w KL(q || p) + (1 - w) KL(p || q), w the share of the teacher's head in the gap |p - q| (AKL, arXiv 2404.02657).

    The head is the teacher's likeliest tokens as long as their probabilities add up to at most `HEAD_MASS`, and always
    the first. The bucket of all other tokens is never in it. w is a constant of the gradient, 1/2 where p = q.
    """

    kind: Literal["adaptive_kl"]

    def evaluate(self, pair: Distributions, p: Tensor) -> tuple[Tensor, Tensor]:
        q, ratio = pair.log_q.exp(), pair.log_p - pair.log_q
        head = _head_share(p, q, pair.has_tail)[:, None]
        slopes = (ratio * p).mul_(1 - head)
        q.mul_(head)
        return slopes.sum(1) - ratio.mul_(q).sum(1), slopes - q


def _head_share(p: Tensor, q: Tensor, has_tail: bool) -> Tensor:
    """Return w `[n]`."""
    gap = (p - q).abs_()
    tokens = q[:, :-1] if has_tail else q
    falling, order = tokens.sort(1, descending=True)
    in_head = falling.cumsum(1) <= HEAD_MASS
    in_head[:, 0] = True
    head, total = (gap.gather(1, order) * in_head).sum(1), gap.sum(1)
    return (head / total).where(total > 0, 0.5)
