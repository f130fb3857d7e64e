"""Divergences between the next-token distributions of a student p and a teacher q, and their gradients.

Every divergence here is a sum over tokens, D = sum_v f(p_v, q_v). With g = df/dp its derivative by the student's
logits is

    dD/dz_v = p_v (g_v - sum_u p_u g_u) = s_v - p_v sum_u s_u,        s = p g,

so a divergence is two formulas, its value and its slopes s, and the rest is one frame (`DivergenceView`). Where the two
are compared is the teacher's matter (`teacher.py`): all tokens, or the teacher's top k and one bucket for the others.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from smallwit.objectives.head import Pullback
from smallwit.objectives.teacher import Distributions, TeacherDistribution


class Divergence(Protocol):
    """A divergence D(p, q) in nats."""

    def evaluate(self, pair: Distributions, p: Tensor) -> tuple[Tensor, Tensor]:
        """D `[n]` and the slopes s = p df/dp `[n, K]`, up to a multiple of `p` that is the same for all K.

        `p` is exp(log p). `log_q` may be overwritten, for nobody else needs it; `p` and `log_p` may not.
        """
        ...


@dataclass(frozen=True)
class DivergenceView:
    """A divergence to the teacher at each token, as a statistic of the head, at one temperature for both."""

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
            return self.teacher.spread(gradient, pair, log_probs, tokens)

        return value, pullback


def _expectation(probabilities: Tensor, values: Tensor) -> Tensor:
    """sum_v probabilities * values `[n]`, in the storage of `values`."""
    return values.mul_(probabilities).sum(1)


@dataclass(frozen=True)
class ForwardKL:
    """KL(q || p) = sum q (log q - log p); s = -q (Hinton et al. 2015, arXiv 1503.02531)."""

    def evaluate(self, pair: Distributions, p: Tensor) -> tuple[Tensor, Tensor]:
        q = pair.log_q.exp()
        return _expectation(q, pair.log_q.sub_(pair.log_p)), q.neg_()


@dataclass(frozen=True)
class ReverseKL:
    """KL(p || q) = sum p (log p - log q); s = p (log p - log q) (MiniLLM, arXiv 2306.08543)."""

    def evaluate(self, pair: Distributions, p: Tensor) -> tuple[Tensor, Tensor]:
        slopes = (pair.log_p - pair.log_q).mul_(p)
        return slopes.sum(1), slopes


def _log_mixture(log_a: Tensor, log_b: Tensor, share: float) -> Tensor:
    """log(share a + (1 - share) b)."""
    return torch.logaddexp(log_a + math.log(share), log_b + math.log1p(-share))


@dataclass(frozen=True)
class JensenShannon:
    """beta KL(q || m) + (1 - beta) KL(p || m), m = beta q + (1 - beta) p, 0 < beta < 1; s = (1 - beta) p log(p / m).

    Generalised Jensen-Shannon (GKD, arXiv 2306.13649, eq. 1), beta weighing the teacher as there and in TRL. The value
    goes to 0 at both ends: divided by beta it tends to forward KL as beta goes to 0, divided by 1 - beta to reverse KL
    as beta goes to 1.
    """

    beta: float

    def evaluate(self, pair: Distributions, p: Tensor) -> tuple[Tensor, Tensor]:
        log_m = _log_mixture(pair.log_q, pair.log_p, self.beta)
        slopes = (pair.log_p - log_m).mul_(p).mul_(1 - self.beta)
        teacher = _expectation(pair.log_q.exp(), pair.log_q - log_m)
        return slopes.sum(1).add_(teacher, alpha=self.beta), slopes


@dataclass(frozen=True)
class SkewForwardKL:
    """KL(q || m) with m = alpha q + (1 - alpha) p; s = -(1 - alpha) p q / m (DistiLLM, arXiv 2402.03898)."""

    alpha: float

    def evaluate(self, pair: Distributions, p: Tensor) -> tuple[Tensor, Tensor]:
        log_ratio = pair.log_q - _log_mixture(pair.log_q, pair.log_p, self.alpha)
        slopes = log_ratio.exp().mul_(p).mul_(self.alpha - 1)
        return _expectation(pair.log_q.exp_(), log_ratio), slopes


@dataclass(frozen=True)
class SkewReverseKL:
    """KL(p || m) with m = alpha p + (1 - alpha) q; s = p (log(p / m) - alpha p / m) (DistiLLM, arXiv 2402.03898)."""

    alpha: float

    def evaluate(self, pair: Distributions, p: Tensor) -> tuple[Tensor, Tensor]:
        log_ratio = pair.log_p - _log_mixture(pair.log_p, pair.log_q, self.alpha)
        slopes = (log_ratio - log_ratio.exp().mul_(self.alpha)).mul_(p)
        return _expectation(p, log_ratio), slopes


@dataclass(frozen=True)
class TotalVariation:
    """sum |p - q| / 2, between 0 and 1; s = p sign(p - q) / 2."""

    def evaluate(self, pair: Distributions, p: Tensor) -> tuple[Tensor, Tensor]:
        gap = p - pair.log_q.exp_()
        slopes = gap.sign().mul_(p).mul_(0.5)
        return gap.abs_().sum(1) / 2, slopes


@dataclass(frozen=True)
class AdaptiveKL:
    """w KL(q || p) + (1 - w) KL(p || q), w the share of the teacher's head in the gap |p - q| (AKL, arXiv 2404.02657).

    The head are the teacher's likeliest tokens as long as their probabilities add up to at most `mu`, the first always;
    the bucket of the tokens that are not told apart is never in it. w is a constant of the gradient, 1/2 where p = q.
    """

    mu: float = 0.5

    def evaluate(self, pair: Distributions, p: Tensor) -> tuple[Tensor, Tensor]:
        q, ratio = pair.log_q.exp(), pair.log_p - pair.log_q
        head = self._head_share(p, q, pair.has_tail)[:, None]
        slopes = (ratio * p).mul_(1 - head)
        q.mul_(head)
        return slopes.sum(1) - _expectation(q, ratio), slopes - q

    def _head_share(self, p: Tensor, q: Tensor, has_tail: bool) -> Tensor:
        """w `[n]`."""
        gap = (p - q).abs_()
        tokens = q[:, :-1] if has_tail else q
        falling, order = tokens.sort(1, descending=True)
        in_head = falling.cumsum(1) <= self.mu
        in_head[:, 0] = True
        head, total = (gap.gather(1, order) * in_head).sum(1), gap.sum(1)
        return torch.where(total > 0, head / total.clamp(min=torch.finfo(total.dtype).tiny), 0.5)
