"""Policy-gradient losses on sampled tokens, from three parts: importance ratio, clip rule, aggregation.

Names: N sampled tokens of B sequences; `sequence` `[N]` is the row of each token, `lengths` `[B]` their numbers of
tokens. `old_log_probs` are those of the policy that sampled, at the sampling temperature. `advantages` are `[N]`.
"""

import torch
from torch import Tensor

from smallwit.objectives.kl_estimates import KLEstimate, kl_estimate
from smallwit.objectives.policy import Aggregation, ClipRule, RatioLevel


def importance_ratio(
    log_probs: Tensor, old_log_probs: Tensor, sequence: Tensor, lengths: Tensor, level: RatioLevel
) -> Tensor:
    """Return the ratio `[N]` of the present to the sampling probability, differentiable in `log_probs` `[N]`.

    `token`: p_t / q_t (PPO, arXiv 1707.06347, sec. 3). `sequence`: their geometric mean over the sequence, the same
    for all of its tokens (GSPO, arXiv 2507.18071, eq. 7). `episode`: their product, the ratio of the whole
    completion as one action, as RLOO takes it (arXiv 2402.14740).
    """
    log_ratio = log_probs - old_log_probs
    if level == "token":
        return log_ratio.exp()
    total = log_ratio.new_zeros(len(lengths)).index_add(0, sequence, log_ratio)
    if level == "sequence":
        total = total / lengths
    return total.exp()[sequence]


def policy_loss(
    rule: ClipRule, log_probs: Tensor, ratio: Tensor, advantages: Tensor, low: float, high: float
) -> Tensor:
    """Return the loss `[N]` of each token, clipped to [1 - low, 1 + high]."""
    if rule == "weight":
        return -clipped_weight(ratio, low, high) * advantages * log_probs
    return clipped_surrogate(ratio, advantages, low, high)


def clipped_surrogate(ratio: Tensor, advantages: Tensor, low: float, high: float) -> Tensor:
    """Return -min(r A, clip(r, 1 - low, 1 + high) A), `[N]` (arXiv 1707.06347, eq. 7).

    With high > low it is DAPO's clip-higher (arXiv 2503.14476, sec. 3.1).
    """
    return -torch.minimum(ratio * advantages, ratio.clamp(1 - low, 1 + high) * advantages)


def clipped_weight(ratio: Tensor, low: float, high: float) -> Tensor:
    """Return CISPO's weight `[N]` of the log-likelihood: the clipped ratio, detached (arXiv 2506.13585, eq. 4 and 5).

    Every token keeps its gradient, however far its ratio is from 1.
    """
    return ratio.detach().clamp(1 - low, 1 + high)


def clipped_shares(rule: ClipRule, ratio: Tensor, advantages: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
    """Return which tokens `[N]` are clipped, below and above: the surrogate has no gradient, or the weight is not the
    ratio."""
    below, above = ratio < 1 - low, ratio > 1 + high
    if rule == "surrogate":
        return below & (advantages < 0), above & (advantages > 0)
    return below, above


def truncated_importance(old_log_probs: Tensor, sampler_log_probs: Tensor, cap: float) -> Tensor:
    """Return the truncated importance weights min(p_old / p_sampler, cap) `[N]`, detached (Ionides 2008).

    They correct for a sampler and a trainer that compute different log-probs with the same weights.
    """
    return (old_log_probs - sampler_log_probs).detach().exp().clamp(max=cap)


def kl_penalty(log_probs: Tensor, reference_log_probs: Tensor, kind: KLEstimate) -> Tensor:
    """Return `kl_estimate` `[N]` as a term of a loss.

    The expected gradient of k1 is 0. So k1 is treated like a part of the reward: detached, times grad log p, which is
    the gradient of k2. The value is k1.
    """
    estimate = kl_estimate(log_probs, reference_log_probs, kind)
    if kind == "k1":
        return estimate.detach() * (1 + log_probs - log_probs.detach())
    return estimate


def token_weights(sequence: Tensor, lengths: Tensor, aggregation: Aggregation) -> Tensor:
    """Return m `[N]`, the weight of a token's loss in the sum that `normaliser` divides."""
    if aggregation == "sequences":
        return 1.0 / lengths[sequence]
    return torch.ones_like(sequence, dtype=torch.float32)


def normaliser(tokens: int, sequences: int, max_new_tokens: int, aggregation: Aggregation) -> float:
    """Return N_c of a step of so many `tokens` and `sequences`, of at most `max_new_tokens` tokens each.

    `sequences`: GRPO's mean of means (arXiv 2402.03300, eq. 3). `tokens`: DAPO's (arXiv 2503.14476, sec. 3.3).
    `constant`: Dr. GRPO's: a token's weight does not depend on the completion's length (arXiv 2503.20783).
    """
    return float({"sequences": sequences, "tokens": tokens, "constant": sequences * max_new_tokens}[aggregation])


def clipped_value_loss(values: Tensor, old_values: Tensor, returns: Tensor, clip: float) -> Tensor:
    """Return max((V - R)^2, (clip(V, V_old - clip, V_old + clip) - R)^2) / 2, `[N]`.

    As in the published code of Ziegler et al. 2019 (arXiv 1909.08593).
    """
    clipped = old_values + (values - old_values).clamp(-clip, clip)
    return 0.5 * torch.maximum((values - returns).square(), (clipped - returns).square())
