"""Divergences between the student p and a teacher q. s are the slopes p df/dp; see `divergence.py`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, field_validator

from smallwit.objectives.distillation import Distillation

if TYPE_CHECKING:
    from torch import Tensor

    from smallwit.objectives.teacher import Distributions

HEAD_MASS = 0.5
"""mu of the paper of `AdaptiveKL`."""

Skew = Annotated[float, Field(gt=0, lt=1, description="share of the other distribution that is mixed in")]


class ForwardKL(Distillation):
    """KL(q || p) = sum q (log q - log p); s = -q (Hinton et al. 2015, arXiv 1503.02531)."""

    kind: Literal["forward_kl"]

    def evaluate(self, pair: Distributions, p: Tensor) -> tuple[Tensor, Tensor]:
        q = pair.log_q.exp()
        return pair.log_q.sub_(pair.log_p).mul_(q).sum(1), q.neg_()


class ReverseKL(Distillation):
    """KL(p || q) = sum p (log p - log q); s = p (log p - log q) (MiniLLM, arXiv 2306.08543)."""

    kind: Literal["reverse_kl"]

    def evaluate(self, pair: Distributions, p: Tensor) -> tuple[Tensor, Tensor]:
        slopes = (pair.log_p - pair.log_q).mul_(p)
        return slopes.sum(1), slopes


class JensenShannon(Distillation):
    """beta KL(q || m) + (1 - beta) KL(p || m), m = beta q + (1 - beta) p, 0 < beta < 1; s = (1 - beta) p log(p / m).

    Generalised Jensen-Shannon (GKD, arXiv 2306.13649, eq. 1), beta weighing the teacher as there and in TRL. The value
    goes to 0 at both ends: divided by beta it tends to forward KL as beta goes to 0, divided by 1 - beta to reverse KL
    as beta goes to 1.
    """

    kind: Literal["jsd"]
    beta: float = Field(default=0.5, description="the teacher's share of the mixture; near 0 forward, near 1 reverse")

    @field_validator("beta")
    @classmethod
    def _inside(cls, beta: float) -> float:
        if not 0 < beta < 1:
            raise ValueError(
                f"lies between 0 and 1, got {beta:g}; at the ends the divergence is 0: use forward_kl (0) "
                "or reverse_kl (1)"
            )
        return beta

    def evaluate(self, pair: Distributions, p: Tensor) -> tuple[Tensor, Tensor]:
        log_m = _log_mixture(pair.log_q, pair.log_p, self.beta)
        slopes = (pair.log_p - log_m).mul_(p).mul_(1 - self.beta)
        teacher = (pair.log_q - log_m).mul_(pair.log_q.exp()).sum(1)
        return slopes.sum(1).add_(teacher, alpha=self.beta), slopes


class SkewForwardKL(Distillation):
    """KL(q || m) with m = alpha q + (1 - alpha) p; s = -(1 - alpha) p q / m (DistiLLM, arXiv 2402.03898)."""

    kind: Literal["skew_forward_kl"]
    alpha: Skew = 0.1

    def evaluate(self, pair: Distributions, p: Tensor) -> tuple[Tensor, Tensor]:
        log_ratio = pair.log_q - _log_mixture(pair.log_q, pair.log_p, self.alpha)
        slopes = log_ratio.exp().mul_(p).mul_(self.alpha - 1)
        return log_ratio.mul_(pair.log_q.exp_()).sum(1), slopes


class SkewReverseKL(Distillation):
    """KL(p || m) with m = alpha p + (1 - alpha) q; s = p (log(p / m) - alpha p / m) (DistiLLM, arXiv 2402.03898)."""

    kind: Literal["skew_reverse_kl"]
    alpha: Skew = 0.1

    def evaluate(self, pair: Distributions, p: Tensor) -> tuple[Tensor, Tensor]:
        log_ratio = pair.log_p - _log_mixture(pair.log_p, pair.log_q, self.alpha)
        slopes = (log_ratio - log_ratio.exp().mul_(self.alpha)).mul_(p)
        return log_ratio.mul_(p).sum(1), slopes


class TotalVariation(Distillation):
    """sum |p - q| / 2, between 0 and 1; s = p sign(p - q) / 2."""

    kind: Literal["total_variation"]

    def evaluate(self, pair: Distributions, p: Tensor) -> tuple[Tensor, Tensor]:
        gap = p - pair.log_q.exp_()
        slopes = gap.sign().mul_(p).mul_(0.5)
        return gap.abs_().sum(1) / 2, slopes


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


def _log_mixture(log_a: Tensor, log_b: Tensor, share: float) -> Tensor:
    """Return log(share a + (1 - share) b)."""
    return (log_a + math.log(share)).logaddexp(log_b + math.log1p(-share))
