"""Forward KL divergence, the loss of classical knowledge distillation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from smallwit.objectives.distillation import Distillation

if TYPE_CHECKING:
    from torch import Tensor

    from smallwit.objectives.teacher import Distributions


class ForwardKL(Distillation):
    """KL(q || p) = sum q (log q - log p); s = -q (Hinton et al. 2015, arXiv 1503.02531)."""

    kind: Literal["forward_kl"]

    def evaluate(self, pair: Distributions, p: Tensor) -> tuple[Tensor, Tensor]:
        q = pair.log_q.exp()
        return pair.log_q.sub_(pair.log_p).mul_(q).sum(1), q.neg_()
