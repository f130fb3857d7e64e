"""The gradient of a divergence between the next-token distributions of a student p and a teacher q.

Every divergence is a sum over tokens, D = sum_v f(p_v, q_v). With g = df/dp its derivative by the student's
logits is

    dD/dz_v = p_v (g_v - sum_u p_u g_u) = s_v - p_v sum_u s_u,        s = p g,

so a divergence is two formulas, its value and its slopes s (`Distillation.evaluate`). `DivergenceStatistic` does the
rest. The teacher (`teacher.py`) chooses the outcomes: all tokens, or its top k and one bucket for the others.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from smallwit.objectives.distillation import Divergence
from smallwit.objectives.head import Pullback
from smallwit.objectives.teacher import TeacherDistribution


@dataclass(frozen=True)
class DivergenceStatistic:
    """A divergence to the teacher at each token, with both distributions at one temperature."""

    divergence: Divergence
    teacher: TeacherDistribution
    temperature: float = 1.0

    def evaluate(self, log_probs: Tensor, tokens: slice, out: Tensor | None) -> tuple[Tensor, Pullback]:
        pair = self.teacher.compare(log_probs, tokens, self.temperature)
        here = out if out is not None and out.shape == pair.log_p.shape else None
        p = torch.exp(pair.log_p, out=here)
        value, slopes = self.divergence.evaluate(pair, p)

        def pullback(upstream: Tensor) -> Tensor:
            upstream = upstream[:, None]
            gradient = p.mul_(-upstream * slopes.sum(1, keepdim=True)).addcmul_(slopes, upstream)
            return self.teacher.scatter_gradient(gradient, pair, log_probs, tokens)

        return value, pullback
