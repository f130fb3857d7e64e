"""Every divergence on every form of a teacher's distribution, and the same in plain float64."""

from collections.abc import Callable

import torch
from torch import Tensor

from objective_cases import ROWS, VOCABULARY, Case, Inputs
from smallwit.objectives.distillation import Divergence
from smallwit.objectives.divergence import DivergenceStatistic
from smallwit.objectives.kinds.divergences import (
    AdaptiveKL,
    ForwardKL,
    JensenShannon,
    ReverseKL,
    SkewForwardKL,
    SkewReverseKL,
    TotalVariation,
)
from smallwit.objectives.teacher import TopK

TOP = 6
Formula = Callable[[Tensor, Tensor, bool], Tensor]
"""A divergence `[N]` of p and q `[N, K]`; the flag says that the last outcome is the bucket of all other tokens."""


def kl(p: Tensor, q: Tensor) -> Tensor:
    return (p * (p / q).log()).sum(1)


def jensen_shannon(beta: float) -> Formula:
    def formula(p: Tensor, q: Tensor, has_tail: bool) -> Tensor:
        mixture = beta * q + (1 - beta) * p
        return beta * kl(q, mixture) + (1 - beta) * kl(p, mixture)

    return formula


def adaptive_kl(p: Tensor, q: Tensor, has_tail: bool) -> Tensor:
    """Token by token in plain Python, the shares detached."""
    values = []
    for one, other in zip(p, q, strict=True):
        tokens = len(other) - has_tail
        order = sorted(range(tokens), key=lambda v: -float(other[v]))
        head, mass = [], 0.0
        for v in order:
            mass += float(other[v])
            if head and mass > 0.5:
                break
            head.append(v)
        gap = (one - other).abs().detach()
        share = gap[head].sum() / gap.sum()
        forward, reverse = (other * (other / one).log()).sum(), (one * (one / other).log()).sum()
        values.append(share * forward + (1 - share) * reverse)
    return torch.stack(values)


DIVERGENCES: dict[str, tuple[Divergence, Formula]] = {
    "forward-kl": (ForwardKL.make(), lambda p, q, _: kl(q, p)),
    "reverse-kl": (ReverseKL.make(), lambda p, q, _: kl(p, q)),
    "jsd": (JensenShannon.make(beta=0.5), jensen_shannon(0.5)),
    "jsd-0.1": (JensenShannon.make(beta=0.1), jensen_shannon(0.1)),
    "jsd-0.9": (JensenShannon.make(beta=0.9), jensen_shannon(0.9)),
    "skew-forward-kl": (SkewForwardKL.make(alpha=0.1), lambda p, q, _: kl(q, 0.1 * q + 0.9 * p)),
    "skew-reverse-kl": (SkewReverseKL.make(alpha=0.3), lambda p, q, _: kl(p, 0.3 * p + 0.7 * q)),
    "adaptive-kl": (AdaptiveKL.make(), adaptive_kl),
    "total-variation": (TotalVariation.make(), lambda p, q, _: (p - q).abs().sum(1) / 2),
}


def top_k(inputs: Inputs, temperature: float) -> TopK:
    return inputs.teacher.top_k(TOP, temperature, chunk_elements=4 * ROWS)


def reference_distributions(logits: Tensor, inputs: Inputs, temperature: float, top: bool) -> tuple[Tensor, Tensor]:
    """p and q `[N, K]` from full logits `[N, V]`."""
    p = torch.softmax(logits[:, :VOCABULARY] / temperature, 1)
    q = torch.softmax(inputs.teacher_logits() / temperature, 1)
    if not top:
        return p, q
    likeliest = torch.zeros_like(q, dtype=torch.bool).scatter_(1, q.topk(TOP, dim=1).indices, True)
    chosen = q.topk(TOP, dim=1).indices

    def buckets(distribution: Tensor) -> Tensor:
        rest = distribution.masked_fill(likeliest, 0.0).sum(1, keepdim=True)
        return torch.cat([distribution.gather(1, chosen), rest], 1)

    return buckets(p), buckets(q)


def divergence_case(divergence: Divergence, formula: Formula, temperature: float, top: bool) -> Case:
    def view(x: Inputs) -> DivergenceStatistic:
        return DivergenceStatistic(divergence, top_k(x, temperature) if top else x.teacher, temperature)

    def reference(logits: Tensor, x: Inputs) -> Tensor:
        return formula(*reference_distributions(logits, x, temperature, top), top)

    return Case(view, lambda values, x: values, reference, exact=not isinstance(divergence, AdaptiveKL))


DIVERGENCE_CASES = {
    f"{name}{' top-k' if top else ''} at {temperature:g}": divergence_case(divergence, formula, temperature, top)
    for name, (divergence, formula) in DIVERGENCES.items()
    for temperature, top in ((1.0, False), (2.0, False), (1.5, True))
}
