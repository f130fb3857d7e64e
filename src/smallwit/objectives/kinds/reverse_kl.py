"""Reverse KL divergence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from smallwit.objectives.distillation import Distillation

if TYPE_CHECKING:
    from torch import Tensor

    from smallwit.objectives.teacher import Distributions


class ReverseKL(Distillation):
    """KL(p || q) = sum p (log p - log q); s = p (log p - log q) (MiniLLM, arXiv 2306.08543)."""

    kind: Literal["reverse_kl"]

    def evaluate(self, pair: Distributions, p: Tensor) -> tuple[Tensor, Tensor]:
        slopes = (pair.log_p - pair.log_q).mul_(p)
        return slopes.sum(1), slopes
