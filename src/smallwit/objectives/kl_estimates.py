"""Estimates of a KL divergence from the log-probs of sampled tokens.

For a token drawn from the policy p, with r = reference / p at that token (Schulman 2020, "Approximating KL divergence",
http://joschu.net/blog/kl-approx.html):

    k1 = -log r             unbiased, of high variance, negative for every second token
    k2 = (log r)^2 / 2      biased, small when the two are close; never negative
    k3 = r - 1 - log r      unbiased, of low variance, never negative
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

KLEstimate = Literal["k1", "k2", "k3"]


def kl_estimate(log_probs: Tensor, reference_log_probs: Tensor, kind: KLEstimate) -> Tensor:
    """Return an estimate `[N]`, in nats, of KL(p || reference) for each of N tokens that were sampled from p.

    `log_probs` `[N]` are p's, `reference_log_probs` `[N]` the reference's or a teacher's, both of the sampled tokens
    and at the sampling temperature. Differentiable in `log_probs`.

    A good estimate of the value is not always a good *loss*. Expected gradients, with the samples fixed and on-policy
    (Tang and Munos 2025, arXiv 2506.09477):

        k1   E[grad log p] = 0: as a loss it is noise. It belongs, detached, into the reward or the advantage.
        k2   E[(log p - log reference) grad log p] = grad KL(p || reference): the one to take as a loss.
        k3   E[(1 - r) grad log p] = grad KL(reference || p): the other direction, although the value estimates
             KL(p || reference). Near the reference the two are alike; r has no bound where p is small.

    Tokens that were not sampled from the present p (several updates on one batch of rollouts) need the ratio
    present / sampling probability as a weight. Without it all three are biased. Raises `ValueError` for another kind.
    """
    log_ratio = reference_log_probs - log_probs
    match kind:
        case "k1":
            return -log_ratio
        case "k2":
            return 0.5 * log_ratio.square()
        case "k3":
            return log_ratio.expm1() - log_ratio
    raise ValueError(f"kl_estimate knows k1, k2 and k3; got {kind}")
