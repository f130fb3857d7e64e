"""Total variation distance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from smallwit.objectives.distillation import Distillation

if TYPE_CHECKING:
    from torch import Tensor

    from smallwit.objectives.teacher import Distributions


class TotalVariation(Distillation):
    """sum |p - q| / 2, between 0 and 1; s = p sign(p - q) / 2."""

    kind: Literal["total_variation"]

    def evaluate(self, pair: Distributions, p: Tensor) -> tuple[Tensor, Tensor]:
        gap = p - pair.log_q.exp_()
        slopes = gap.sign().mul_(p).mul_(0.5)
        return gap.abs_().sum(1) / 2, slopes
