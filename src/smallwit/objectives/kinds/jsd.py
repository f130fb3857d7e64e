"""Generalised Jensen-Shannon divergence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, field_validator

from smallwit.objectives.distillation import Distillation, log_mixture

if TYPE_CHECKING:
    from torch import Tensor

    from smallwit.objectives.teacher import Distributions


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
        log_m = log_mixture(pair.log_q, pair.log_p, self.beta)
        slopes = (pair.log_p - log_m).mul_(p).mul_(1 - self.beta)
        teacher = (pair.log_q - log_m).mul_(pair.log_q.exp()).sum(1)
        return slopes.sum(1).add_(teacher, alpha=self.beta), slopes
