"""Skew forward KL divergence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from smallwit.objectives.distillation import Distillation, Skew, log_mixture

if TYPE_CHECKING:
    from torch import Tensor

    from smallwit.objectives.teacher import Distributions


class SkewForwardKL(Distillation):
    """KL(q || m) with m = alpha q + (1 - alpha) p; s = -(1 - alpha) p q / m (DistiLLM, arXiv 2402.03898)."""

    kind: Literal["skew_forward_kl"]
    alpha: Skew = 0.1

    def evaluate(self, pair: Distributions, p: Tensor) -> tuple[Tensor, Tensor]:
        log_ratio = pair.log_q - log_mixture(pair.log_q, pair.log_p, self.alpha)
        slopes = log_ratio.exp().mul_(p).mul_(self.alpha - 1)
        return log_ratio.mul_(pair.log_q.exp_()).sum(1), slopes
