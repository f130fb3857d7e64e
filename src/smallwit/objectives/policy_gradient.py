"""Policy-gradient losses on sampled tokens."""

import torch
from torch import Tensor


def group_advantages(rewards: Tensor, epsilon: float = 1e-4) -> Tensor:
    """GRPO's advantages `[P, G]` from the rewards `[P, G]` of G samples of each of P problems.

    (r - mean) / (std + epsilon) within each group (Shao et al. 2024, arXiv 2402.03300, eq. 4). NaN marks a reward
    that is not known: it is left out of the statistics and its advantage is 0. A group of one known reward, or of
    equal ones, has advantage 0.
    """
    known = ~rewards.isnan()
    count = known.sum(1, keepdim=True).clamp(min=1)
    values = rewards.nan_to_num(0.0)
    mean = values.sum(1, keepdim=True) / count
    centred = torch.where(known, values - mean, torch.zeros_like(values))
    spread = (centred.square().sum(1, keepdim=True) / (count - 1).clamp(min=1)).sqrt()
    # The mean of equal rewards such as 0.1 is rounded: without this, what is left of them would look like a signal.
    lowest, highest = rewards.nan_to_num(torch.inf).amin(1), rewards.nan_to_num(-torch.inf).amax(1)
    return torch.where((highest > lowest)[:, None], centred / (spread + epsilon), torch.zeros_like(centred))


def clipped_surrogate(log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, clip: float) -> Tensor:
    """-min(r A, clip(r, 1 - clip, 1 + clip) A) for each token, r = exp(log_probs - old_log_probs).

    All arguments are `[N]`; `old_log_probs` are the sampler's, at the sampling temperature (Schulman et al. 2017,
    arXiv 1707.06347, eq. 7).
    """
    ratio = (log_probs - old_log_probs).exp()
    clipped = ratio.clamp(1 - clip, 1 + clip)
    return -torch.minimum(ratio * advantages, clipped * advantages)
