"""How the next token is chosen: the likeliest, or drawn from what temperature, top-k, top-p and min-p leave.

The order is that of transformers' `generate`: repetition penalty, temperature, top-k, top-p, min-p. Rows may be drawn
in different ways, and all of them are drawn at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from smallwit.inference.engine import Sampling
from smallwit.models.head import OutputHead

BLOCK = 512
"""Tokens of the vocabulary that are summed up before one of them is looked at by itself."""
_CHUNK_BYTES, _HALF_CHUNK_BYTES = 4 << 20, 32 << 20
"""Bytes of weights and logits that a CPU reads and makes at a time: the logits are read again while in its cache. The
matrix units that multiply 16-bit numbers want larger pieces, the second number."""


@dataclass(frozen=True)
class Chosen:
    """Tokens `[B]`, their log-probabilities `[B]`, whether all numbers are finite, and the likeliest tokens
    with theirs, `[B, N]` both."""

    tokens: Tensor
    log_probs: Tensor | None
    finite: Tensor
    top: tuple[Tensor, Tensor] | None = None


class NextToken:
    """Chooses tokens from hidden states. Only the first `vocabulary` rows of the head are real tokens.

    Each block of logits is summed up when it is made: its largest, and the sum of its exponentials. A row's draw
    falls into a block, and then on a token of it, in float64. On a CPU the memory of the logits is used again.
    """

    def __init__(self, head: OutputHead, vocabulary: int) -> None:
        self.head, self.vocabulary = head, vocabulary
        self.storage: Tensor | None = None

    def choose(
        self, states: Tensor, samplings: Sequence[Sampling], draws: Tensor, seen: Tensor | None = None
    ) -> Chosen:
        """Return the next token of each row of `states` `[B, H]`.

        `draws` `[B]` are uniform numbers; `seen` `[B, V]` are the tokens that repetition penalties apply to.
        """
        first = samplings[0]
        if all(sampling is first for sampling in samplings):
            samplings = [first]  # what is one for all is not made for each
        top = max(sampling.top_log_probs for sampling in samplings)
        greedy = [sampling.temperature == 0 for sampling in samplings]
        temperatures = [sampling.temperature or 1.0 for sampling in samplings]
        scored = not all(greedy) or any(sampling.log_probs for sampling in samplings) or top > 0
        if any(map(_is_processed, samplings)):
            logits = _processed(self._summed(states, None, False)[0], samplings, temperatures, seen)
            largest, sums = _statistics(logits.T, scored)
        else:
            temperature = None if set(temperatures) == {1.0} else _column(temperatures, states.device)
            logits, largest, sums = self._summed(states, temperature, scored)
        best = _likeliest(logits, largest)
        finite = states.isfinite().all() & largest.amax(1).isfinite().all()
        if not scored:
            return Chosen(best, None, finite)
        assert sums is not None
        # Of blocks: their logarithm is safe from overflow, as each block has its own largest.
        reference = largest.amax(1, keepdim=True)
        weights = sums.double() * (largest - reference).double().exp()
        total = weights.sum(1)
        tokens = best
        if not all(greedy):
            drawn = _drawn(logits, reference, weights, draws.to(logits.device))
            tokens = torch.where(torch.tensor(greedy, device=logits.device), best, drawn) if any(greedy) else drawn
        log_normaliser = reference[:, 0].double() + total.log()
        log_probs = (logits.gather(1, tokens[:, None])[:, 0].double() - log_normaliser).float()
        likeliest = None
        if top:
            values, places = logits.topk(top, dim=1)
            likeliest = places, (values.double() - log_normaliser[:, None]).float()
        return Chosen(tokens, log_probs, finite, likeliest)

    def _summed(self, states: Tensor, temperature: Tensor | None, scored: bool) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return the logits `[B, V]` over the temperature `[B, 1]`, and the statistics of their blocks.

        They hold until the next call. Not under autocast, as in training.
        """
        if states.device.type != "cpu":
            logits = self.head.logits(states, self.vocabulary).float()
            logits = logits if temperature is None else logits / temperature
            # Apple's GPUs have no float64.
            logits = logits.cpu() if logits.device.type == "mps" else logits
            return logits, *_statistics(logits.T, scored)
        size = self.vocabulary * len(states)
        if self.storage is None or len(self.storage) < size:
            self.storage = torch.empty(size)
        # A row of it is a token's logits in all rows: with the weight as its left factor the product is faster.
        by_token = self.storage[:size].view(self.vocabulary, len(states))
        columns = self.head.scaled(states).T.contiguous()
        room = _CHUNK_BYTES if columns.dtype == torch.float32 else _HALF_CHUNK_BYTES
        width = max(1, room // (4 * BLOCK * (len(states) + len(columns)))) * BLOCK
        parts = []
        for start in range(0, self.vocabulary, width):
            tokens = slice(start, min(start + width, self.vocabulary))
            chunk, weight = by_token[tokens], self.head.weight[tokens].detach().to(columns.dtype)
            if columns.dtype == torch.float32:
                torch.mm(weight, columns, out=chunk)
            else:
                chunk.copy_(torch.mm(weight, columns))
            if self.head.softcap is not None:
                chunk.div_(self.head.softcap).tanh_().mul_(self.head.softcap)
            if temperature is not None:
                chunk.div_(temperature.T)
            parts.append(_statistics(chunk, scored))
        sums = torch.cat([part for _, part in parts if part is not None], 1) if scored else None
        return by_token.T, torch.cat([part for part, _ in parts], 1), sums


def _column(values: Sequence[float], device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device=device)[:, None]


def _is_processed(sampling: Sampling) -> bool:
    """Return whether more than the temperature changes the logits."""
    truncating = sampling.top_k is not None or sampling.top_p < 1.0 or sampling.min_p > 0.0
    return sampling.repetition_penalty != 1.0 or (truncating and sampling.temperature > 0)


def _statistics(by_token: Tensor, scored: bool) -> tuple[Tensor, Tensor | None]:
    """Return the largest logit of each block of `by_token` `[V, B]` and the sum of exp(logit - largest), `[B, blocks]`.

    They are computed in the layout of the logits on a CPU: with results in another order it takes ten times as long.
    """
    whole = len(by_token) // BLOCK * BLOCK
    parts = [by_token[:whole].unflatten(0, (-1, BLOCK))] if whole else []
    if whole < len(by_token):
        parts.append(by_token[None, whole:])
    largest = [part.amax(1) for part in parts]
    if not scored:
        return torch.cat(largest).T, None
    sums = []
    for part, most in zip(parts, largest, strict=True):
        # A block in which nothing is left has no largest: minus infinity less itself is no number.
        safe = most.masked_fill(most == -torch.inf, 0.0)
        sums.append(torch.sub(part, safe[:, None]).exp_().sum(1))
    return torch.cat(largest).T, torch.cat(sums).T


def _likeliest(logits: Tensor, largest: Tensor) -> Tensor:
    """Return the place `[B]` of the largest logit: over a whole vocabulary argmax takes several times as long."""
    block, start = _block(logits, largest.argmax(1))
    return start + logits.gather(1, block).argmax(1)


def _block(logits: Tensor, number: Tensor) -> tuple[Tensor, Tensor]:
    """Return the places `[B, BLOCK]` of the block of each row that has this `number` `[B]`, and its first `[B]`.

    The last block begins earlier, so that it is whole.
    """
    size = min(BLOCK, logits.shape[1])
    start = (number * BLOCK).clamp(max=logits.shape[1] - size)
    return start[:, None] + torch.arange(size, device=logits.device), start


def _drawn(logits: Tensor, reference: Tensor, weights: Tensor, draws: Tensor) -> Tensor:
    """Return tokens `[B]`: `draws` `[B]` times the sum of `weights` `[B, blocks]` falls on them."""
    cumulative = weights.cumsum(1)
    wanted = draws[:, None].double() * cumulative[:, -1:]
    last = _last_positive(weights)
    number = torch.searchsorted(cumulative, wanted, right=True).clamp_(max=last)[:, 0]
    before = cumulative.gather(1, number[:, None]) - weights.gather(1, number[:, None])
    block, start = _block(logits, number)
    inside = (logits.gather(1, block) - reference).double().exp()
    # What the last block shares with the one before is not its own.
    inside = inside.masked_fill(block < number[:, None] * BLOCK, 0.0)
    summed = inside.cumsum(1)
    place = torch.searchsorted(summed, wanted - before, right=True).clamp_(max=_last_positive(inside))
    return start + place[:, 0]


def _last_positive(weights: Tensor) -> Tensor:
    """Return the last place `[B, 1]` with a weight: rounding may put a draw behind all of them."""
    places = torch.arange(weights.shape[1], device=weights.device).expand_as(weights)
    return places.masked_fill(weights <= 0, 0).amax(1, keepdim=True)


def tokens_seen(prompts: Sequence[Sequence[int]], vocabulary: int, device: torch.device) -> Tensor:
    """Return which tokens of the vocabulary stand in each prompt `[B, V]`."""
    seen = torch.zeros(len(prompts), vocabulary, dtype=torch.bool)
    for row, prompt in enumerate(prompts):
        seen[row, [token for token in prompt if token < vocabulary]] = True
    return seen.to(device)


def _processed(
    logits: Tensor, samplings: Sequence[Sampling], temperatures: Sequence[float], seen: Tensor | None
) -> Tensor:
    """Return the logits after penalty and temperature, minus infinity for what top-k, top-p and min-p leave out."""
    device = logits.device
    if seen is not None:
        # Keskar et al. 2019, arXiv 1909.05858, section 4.1.
        penalty = _column([sampling.repetition_penalty for sampling in samplings], device)
        logits = torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)
    logits = logits / _column(temperatures, device)
    size = logits.shape[1]
    top_k = [min(each.top_k or size, size) if each.temperature > 0 else size for each in samplings]
    if min(top_k) < size:
        most = max(count for count in top_k if count < size)
        best = logits.topk(most, dim=1).values
        place = torch.tensor([min(count, most) - 1 for count in top_k], device=device)[:, None]
        least = best.gather(1, place.expand(len(logits), 1)).masked_fill(
            torch.tensor(top_k, device=device)[:, None] == size, -torch.inf
        )
        logits = logits.masked_fill(logits < least, -torch.inf)
    top_p = [each.top_p if each.temperature > 0 else 1.0 for each in samplings]
    if min(top_p) < 1.0:
        # The fewest that hold so much of the probability (Holtzman et al. 2020, arXiv 1904.09751).
        ordered, places = torch.log_softmax(logits, 1).sort(dim=1, descending=True)
        probabilities = ordered.exp()
        before = probabilities.cumsum(1) - probabilities
        limit = _column(top_p, device)
        beyond = (before >= limit) & (limit < 1.0)
        logits = logits.masked_fill(torch.zeros_like(beyond).scatter(1, places, beyond), -torch.inf)
    min_p = [each.min_p if each.temperature > 0 else 0.0 for each in samplings]
    if max(min_p) > 0.0:
        # At least this share of the likeliest token's probability (Nguyen et al. 2024, arXiv 2407.01082).
        least = logits.amax(1, keepdim=True) + _column(min_p, device).log()
        logits = logits.masked_fill(logits < least, -torch.inf)
    return logits
