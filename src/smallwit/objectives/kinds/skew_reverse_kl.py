"""Skew reverse KL divergence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from smallwit.objectives.distillation import Distillation, Skew, log_mixture

if TYPE_CHECKING:
    from torch import Tensor

    from smallwit.objectives.teacher import Distributions


class SkewReverseKL(Distillation):
    """KL(p || m) with m = alpha p + (1 - alpha) q; s = p (log(p / m) - alpha p / m) (DistiLLM, arXiv 2402.03898)."""

    kind: Literal["skew_reverse_kl"]
    alpha: Skew = 0.1

    def evaluate(self, pair: Distributions, p: Tensor) -> tuple[Tensor, Tensor]:
        log_ratio = pair.log_p - log_mixture(pair.log_p, pair.log_q, self.alpha)
        slopes = (log_ratio - log_ratio.exp().mul_(self.alpha)).mul_(p)
        return log_ratio.mul_(p).sum(1), slopes
