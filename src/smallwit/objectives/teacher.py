"""A teacher's next-token distributions, in the forms that a student can be compared with.

Names: N tokens, n tokens of one chunk, V tokens of the shared vocabulary, K outcomes: the V tokens, or the teacher's k
likeliest tokens and, as the last outcome, the bucket of all others.
"""

from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from smallwit.models.cpu_memory import HeadMemory
from smallwit.models.cpu_products import write_product
from smallwit.objectives.head import CHUNK_ELEMENTS, softcapped


@dataclass(frozen=True)
class Distributions:
    """log p of the student and log q of the teacher `[n, K]`; `has_tail` says that the last outcome is the bucket."""

    log_p: Tensor
    log_q: Tensor
    has_tail: bool = False


class TeacherDistribution(Protocol):
    """A teacher's distributions for N tokens."""

    def prepare(self, tokens: slice) -> None:
        """Project a chunk of tokens. `compare` is then called for pieces of it that are too small to project alone."""
        ...

    def compare(self, log_probs: Tensor, tokens: slice, temperature: float) -> Distributions:
        """Return both distributions on the K outcomes, from the student's log-probabilities `[n, V or more]`.

        `log_probs` is not changed. Its padded columns after the V tokens are left out. `log_q` is new storage.
        """
        ...

    def scatter_gradient(self, gradient: Tensor, pair: Distributions, log_probs: Tensor, tokens: slice) -> Tensor:
        """Return the gradient by all logits, shaped as `log_probs`, from that by the K outcomes' logits `[n, K]`."""
        ...

    def holds_nan(self) -> bool:
        """Return whether some of the teacher's log-probabilities are NaN. Called only when a loss is not finite."""
        ...


def _shared(log_probs: Tensor, vocabulary: int) -> Tensor:
    """Return log p over the first `vocabulary` tokens, normalised again without the padded columns."""
    if log_probs.shape[1] == vocabulary:
        return log_probs
    return torch.log_softmax(log_probs[:, :vocabulary], dim=1)


def _padded(gradient: Tensor, width: int) -> Tensor:
    """Return the gradient with zeros for the padded columns."""
    if gradient.shape[1] == width:
        return gradient
    return torch.nn.functional.pad(gradient, (0, width - gradient.shape[1]))


@dataclass(frozen=True)
class TeacherHead:
    """A teacher's hidden states `[N, Ht]` and head `[Vt, Ht]`; `vocabulary` real tokens, shared with the student.

    `softcap` bounds its logits at cap * tanh(logits / cap). Logits are computed chunk by chunk and never exist for all
    tokens; `prepared` is one chunk.
    """

    hidden: Tensor
    weight: Tensor
    vocabulary: int
    memory: HeadMemory = field(default_factory=HeadMemory, compare=False)
    softcap: float | None = None
    prepared: "_Prepared" = field(default_factory=lambda: _Prepared(), compare=False)

    def prepare(self, tokens: slice) -> None:
        hidden, weight = self.hidden[tokens], self.weight[: self.vocabulary]
        self.prepared.project(hidden, weight, tokens, self.memory, self.softcap)

    def log_probs(self, tokens: slice, temperature: float) -> Tensor:
        """Return log q `[n, V]` in float32."""
        logits = self.prepared.logits(tokens)
        if logits is None:
            logits = softcapped(self.hidden[tokens] @ self.weight[: self.vocabulary].T, self.softcap)
        if temperature != 1.0:
            logits = logits / temperature
        return torch.log_softmax(logits, dim=1, dtype=torch.promote_types(logits.dtype, torch.float32))

    def compare(self, log_probs: Tensor, tokens: slice, temperature: float) -> Distributions:
        return Distributions(_shared(log_probs, self.vocabulary), self.log_probs(tokens, temperature))

    def scatter_gradient(self, gradient: Tensor, pair: Distributions, log_probs: Tensor, tokens: slice) -> Tensor:
        return _padded(gradient, log_probs.shape[1])

    @torch.no_grad()
    def holds_nan(self) -> bool:
        rows = max(1, CHUNK_ELEMENTS // self.vocabulary)
        starts = range(0, len(self.hidden), rows)
        return any(bool(self.log_probs(slice(start, start + rows), 1.0).isnan().any()) for start in starts)

    @torch.no_grad()
    def top_k(self, k: int, temperature: float, *, chunk_elements: int) -> "TopK":
        """Return the k likeliest tokens of each of the N, and the mass of the others; all V tokens if V < k."""
        rows, total = max(1, chunk_elements // self.vocabulary), self.hidden.shape[0]
        parts = []
        for start in range(0, max(total, 1), rows):
            log_q = self.log_probs(slice(start, min(start + rows, total)), temperature)
            top, ids = log_q.topk(min(k, self.vocabulary), dim=1)
            parts.append((ids, top, _log_rest(log_q.exp_(), ids)))
        ids, top, tail = (torch.cat(part) for part in zip(*parts, strict=True))
        return TopK(ids, top, tail, self.vocabulary, temperature)


class _Prepared:
    """The logits of one chunk of tokens."""

    def __init__(self) -> None:
        self.tokens = slice(0, 0)
        self.chunk: Tensor | None = None

    def project(self, hidden: Tensor, weight: Tensor, tokens: slice, memory: HeadMemory, softcap: float | None) -> None:
        self.chunk = memory.rows(len(hidden), len(weight), like=hidden)
        softcapped(write_product(hidden, weight, self.chunk), softcap)
        self.tokens = tokens

    def logits(self, tokens: slice) -> Tensor | None:
        """Return the logits of `tokens`, `None` if the chunk does not have them all."""
        first, last = self.tokens.start, self.tokens.stop
        if self.chunk is None or not first <= tokens.start <= tokens.stop <= last:
            return None
        return self.chunk[tokens.start - first : tokens.stop - first]


@dataclass(frozen=True)
class RankedTeacher:
    """A teacher with another vocabulary, compared by rank (ULD, arXiv 2402.12030).

    The student's likeliest token is compared with the teacher's likeliest, the second with the second. The shorter list
    is padded with zeros. `vocabulary` is the number of the student's real tokens.
    """

    head: TeacherHead
    vocabulary: int

    def prepare(self, tokens: slice) -> None:
        self.head.prepare(tokens)

    def compare(self, log_probs: Tensor, tokens: slice, temperature: float) -> Distributions:
        shared = _shared(log_probs, self.vocabulary)
        falling = self.head.log_probs(tokens, temperature).sort(1, descending=True).values
        order = shared.argsort(1, descending=True)
        both = min(self.vocabulary, self.head.vocabulary)
        log_q = torch.full_like(shared, -torch.inf).scatter_(1, order[:, :both], falling[:, :both].to(shared.dtype))
        if self.head.vocabulary <= self.vocabulary:
            return Distributions(shared, log_q)
        rest = falling[:, both:].logsumexp(1, keepdim=True).to(shared.dtype)
        nothing = torch.full_like(rest, -torch.inf)
        return Distributions(torch.cat([shared, nothing], 1), torch.cat([log_q, rest], 1), has_tail=True)

    def scatter_gradient(self, gradient: Tensor, pair: Distributions, log_probs: Tensor, tokens: slice) -> Tensor:
        return _padded(gradient[:, : self.vocabulary], log_probs.shape[1])

    def holds_nan(self) -> bool:
        return self.head.holds_nan()


def _log_rest(probabilities: Tensor, ids: Tensor) -> Tensor:
    """Return log `[n]` of the sum of `probabilities` `[n, V]` without those of `ids` `[n, k]`. Overwrites them.

    A sum keeps the digits of a small rest; 1 minus the others would not. A sum of 0 becomes the smallest normal number,
    so that its logarithm is finite.
    """
    rest = probabilities.scatter_(1, ids, 0.0).sum(1)
    return rest.clamp_(min=torch.finfo(rest.dtype).tiny).log_()


@dataclass(frozen=True)
class TopK:
    """The top k of a teacher at `temperature`: tokens `ids` `[N, k]`, their `log_probs` `[N, k]`, and `log_tail` `[N]`,
    the log of the mass of all others. `vocabulary` real tokens are shared with the student.

    The student is compared on k + 1 outcomes, p_tail = sum of its other tokens. For a divergence D of these,
    dD/dz_v = p_v (g_tail - sum p g) for each token v of the tail, so nothing but the result is as wide as V.
    """

    ids: Tensor
    log_probs: Tensor
    log_tail: Tensor
    vocabulary: int
    temperature: float

    def prepare(self, tokens: slice) -> None:
        """Do nothing: there is nothing to project."""

    def compare(self, log_probs: Tensor, tokens: slice, temperature: float) -> Distributions:
        """See `TeacherDistribution.compare`. Raises `ValueError` for a temperature other than that of the top k."""
        if temperature != self.temperature:
            raise ValueError(f"the teacher's top k has temperature {self.temperature}; compared at {temperature}")
        shared, ids = _shared(log_probs, self.vocabulary), self.ids[tokens]
        log_p = torch.cat([shared.gather(1, ids), _log_rest(shared.exp(), ids)[:, None]], 1)
        log_q = torch.cat([self.log_probs[tokens], self.log_tail[tokens, None]], 1)
        return Distributions(log_p, log_q.to(log_p.dtype), has_tail=True)

    def scatter_gradient(self, gradient: Tensor, pair: Distributions, log_probs: Tensor, tokens: slice) -> Tensor:
        p = _shared(log_probs, self.vocabulary).exp()
        in_tail = gradient[:, -1:] / pair.log_p[:, -1:].exp()
        spread = p.mul_(in_tail).scatter_(1, self.ids[tokens], gradient[:, :-1])
        return _padded(spread, log_probs.shape[1])

    def holds_nan(self) -> bool:
        return bool(self.log_probs.isnan().any() or self.log_tail.isnan().any())
