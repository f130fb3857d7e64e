"""How the next token is chosen: the likeliest, or drawn from what temperature, top-k and top-p leave.

The order is that of transformers' `generate`: repetition penalty, temperature, top-k, top-p.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from smallwit.inference.engine import Sampling

_BLOCK = 512


def uniforms(seeds: Sequence[int], length: int) -> Tensor:
    """Uniform draws `[B, length]`: row i is a pure function of seeds[i]."""
    rows = [np.random.Generator(np.random.Philox(key=seed)).random(length) for seed in seeds]
    return torch.from_numpy(np.stack(rows))


def tokens_seen(tokens: Tensor, real: Tensor, vocabulary: int) -> Tensor:
    """Which tokens of the vocabulary stand in each row `[B, V]`, of `tokens` and the mask of real ones `[B, T]`."""
    counts = torch.zeros(len(tokens), vocabulary, dtype=torch.int32, device=tokens.device)
    return counts.scatter_add(1, tokens, real.int()) > 0


def choose(
    logits: Tensor, sampling: Sampling, uniform: Tensor | None, seen: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """The next token of each row of `logits` `[B, V]`, and its log-probability `[B]` if it is wanted.

    `uniform` `[B]` draws it by inverting the distribution function; without it, or at temperature 0, it is the
    likeliest. The log-probability is that of the model's whole distribution at the sampling temperature, whatever
    penalty, top-k and top-p took away. `seen` `[B, V]` are the tokens that a repetition penalty applies to.
    """
    greedy = uniform is None or sampling.temperature == 0
    if greedy and not sampling.log_probs:
        return _likeliest(logits, sampling, seen), None
    scaled = logits.float() / (sampling.temperature or 1.0)
    total = torch.logsumexp(scaled, 1)
    if uniform is None or greedy:
        chosen = _likeliest(logits, sampling, seen)
    else:
        wanted = scaled if seen is None else _penalised(scaled, seen, sampling.repetition_penalty)
        plain = seen is None and sampling.top_k is None and sampling.top_p == 1.0
        log_probs = scaled - total[:, None] if plain else _truncated(wanted, sampling)
        # In float64, which Apple's GPUs lack.
        place = torch.device("cpu") if logits.device.type == "mps" else logits.device
        cumulative = log_probs.to(place).double().exp().cumsum(1)
        threshold = uniform.to(place) * cumulative[:, -1]
        chosen = torch.searchsorted(cumulative, threshold[:, None], right=True).squeeze(1)
        chosen = chosen.clamp(max=logits.shape[1] - 1).to(logits.device)
    return chosen, scaled.gather(1, chosen[:, None]).squeeze(1) - total if sampling.log_probs else None


def _likeliest(logits: Tensor, sampling: Sampling, seen: Tensor | None) -> Tensor:
    return _largest(logits if seen is None else _penalised(logits.float(), seen, sampling.repetition_penalty))


def _largest(values: Tensor) -> Tensor:
    """The place `[B]` of the first largest value of each row `[B, V]`.

    First the block that it is in, then the place: on a CPU argmax over a whole vocabulary takes several times as long.
    """
    size = values.shape[1]
    whole = size // _BLOCK * _BLOCK
    if whole == 0:
        return values.argmax(1)
    tops = values[:, :whole].unflatten(1, (-1, _BLOCK)).amax(2)
    if whole < size:
        tops = torch.cat([tops, values[:, whole:].amax(1, keepdim=True)], 1)
    start = (tops.argmax(1) * _BLOCK).clamp(max=size - _BLOCK)
    block = start[:, None] + torch.arange(_BLOCK, device=values.device)
    return start + values.gather(1, block).argmax(1)


def _penalised(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Tokens that were there before are made less likely (Keskar et al. 2019, arXiv 1909.05858, section 4.1)."""
    return torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


def _truncated(logits: Tensor, sampling: Sampling) -> Tensor:
    """Log-probabilities of the `top_k` likeliest, and of those the fewest that hold `top_p` of the probability
    (Holtzman et al. 2020, arXiv 1904.09751); minus infinity for the others, not normalised."""
    if sampling.top_k is not None and sampling.top_k < logits.shape[1]:
        least = logits.topk(sampling.top_k, dim=1).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    log_probs = torch.log_softmax(logits, 1)
    if sampling.top_p < 1.0:
        ordered, places = log_probs.sort(dim=1, descending=True)
        probabilities = ordered.exp()
        before = probabilities.cumsum(1) - probabilities
        drop = torch.zeros_like(before, dtype=torch.bool).scatter(1, places, before >= sampling.top_p)
        log_probs = log_probs.masked_fill(drop, -torch.inf)
    return log_probs
