"""The chunked language-model head: hidden states to per-token statistics, and no `[tokens, vocabulary]` tensor kept.

Names: N tokens, H hidden width, V vocabulary rows, n tokens of one chunk.

A `View` is one statistic of the next-token distribution at every token. The head projects a chunk of tokens, lets each
view reduce `[n, V]` to `[n]`, and drops the chunk. What an algorithm does with the `[N]` vectors is plain autograd:

- `chunked_loss`, for losses that are a sum over tokens: a chunk's loss and its gradient are taken while its logits
  are there, so the head is projected once.
- `token_statistics`, for everything else (ratios of whole sequences): backward projects every chunk again.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK_ELEMENTS = 1 << 24
"""Elements of one chunk of logits: 64 MiB in float32."""


class View(Protocol):
    """One statistic of the distribution softmax(z / temperature) at each token."""

    @property
    def temperature(self) -> float: ...

    def value(self, log_probs: Tensor, tokens: slice) -> Tensor:
        """The statistic `[n]` from the log-probabilities `[n, V]` of the tokens `tokens`."""
        ...

    def gradient(self, log_probs: Tensor, tokens: slice, upstream: Tensor) -> Tensor:
        """d(sum of upstream * value) / d(z / temperature): `[n, V]` from `[n, V]` and `[n]`.

        May write into `log_probs`, which nobody reads afterwards.
        """
        ...


@dataclass(frozen=True)
class LogProb:
    """log p(label): d/dz = onehot(label) - p."""

    labels: Tensor
    temperature: float = 1.0

    def value(self, log_probs: Tensor, tokens: slice) -> Tensor:
        return log_probs.gather(1, self.labels[tokens, None]).squeeze(1)

    def gradient(self, log_probs: Tensor, tokens: slice, upstream: Tensor) -> Tensor:
        gradient = log_probs.exp_().mul_(-upstream[:, None])
        return gradient.scatter_add_(1, self.labels[tokens, None], upstream[:, None])


@dataclass(frozen=True)
class Entropy:
    """H = -sum p log p, in nats: d/dz = -p (log p + H)."""

    temperature: float = 1.0

    def value(self, log_probs: Tensor, tokens: slice) -> Tensor:
        return -(log_probs.exp() * log_probs).sum(1)

    def gradient(self, log_probs: Tensor, tokens: slice, upstream: Tensor) -> Tensor:
        entropy = self.value(log_probs, tokens)[:, None]
        return -log_probs.exp() * (log_probs + entropy) * upstream[:, None]


def token_statistics(
    hidden: Tensor, weight: Tensor, views: Sequence[View], *, chunk_elements: int = CHUNK_ELEMENTS
) -> tuple[Tensor, ...]:
    """One `[N]` vector in float32 for each view, from hidden states `[N, H]` and the head `[V, H]`.

    Differentiable in `hidden` and `weight`. At most `chunk_elements` logits exist for one view at a time. Raises
    `ValueError` if the widths differ.
    """
    _check_widths(hidden, weight)
    rows = max(1, chunk_elements // weight.shape[0])
    return _Recomputed.apply(hidden, weight, tuple(views), rows)


def chunked_loss(
    hidden: Tensor,
    weight: Tensor,
    views: Sequence[View],
    loss: "ChunkLoss",
    *,
    vocabulary: int | None = None,
    chunk_elements: int = CHUNK_ELEMENTS,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The sum over chunks of `loss(values, tokens)`, and the views' values `[N]` without gradient.

    `values` are those of the chunk, `[n]` each, `tokens` its slice of 0..N; the loss of a token must depend on that
    token's values alone. Only the first `vocabulary` rows of the head are projected. The scalar is differentiable in
    `hidden` and `weight`, once. Raises `ValueError` if the widths differ.
    """
    _check_widths(hidden, weight)
    rows = max(1, chunk_elements // weight.shape[0])
    total, *values = _OnePass.apply(hidden, weight, tuple(views), loss, vocabulary or weight.shape[0], rows)
    return total, tuple(values)


ChunkLoss = Callable[[Sequence[Tensor], slice], Tensor]


def _check_widths(hidden: Tensor, weight: Tensor) -> None:
    if hidden.dim() != 2 or weight.dim() != 2 or hidden.shape[1] != weight.shape[1]:
        raise ValueError(
            f"the head needs hidden [N, H] and weight [V, H]; got {list(hidden.shape)} and {list(weight.shape)}"
        )


def _chunks(count: int, rows: int) -> Iterator[slice]:
    for start in range(0, count, rows):
        yield slice(start, min(start + rows, count))


class _Chunk:
    """The log-probabilities of some tokens, at each temperature that a view asks for."""

    def __init__(self, hidden: Tensor, weight: Tensor, views: Sequence[View], tokens: slice) -> None:
        self.views, self.tokens = views, tokens
        logits = hidden[tokens] @ weight.T
        dtype = torch.promote_types(logits.dtype, torch.float32)
        self.log_probs = {
            temperature: torch.log_softmax(logits if temperature == 1.0 else logits / temperature, dim=1, dtype=dtype)
            for temperature in {view.temperature for view in views}
        }

    def values(self) -> list[Tensor]:
        """Each view's `[n]`."""
        return [view.value(self.log_probs[view.temperature], self.tokens) for view in self.views]

    def gradient(self, upstream: Sequence[Tensor | None]) -> Tensor | None:
        """d(sum of upstream * value) / d(logits) `[n, V]`, `None` without any. The log-probabilities are used up."""
        total: Tensor | None = None
        wanted = [(view, one) for view, one in zip(self.views, upstream, strict=True) if one is not None]
        for place, (view, one) in enumerate(wanted):
            log_probs = self.log_probs[view.temperature]
            if any(later.temperature == view.temperature for later, _ in wanted[place + 1 :]):
                log_probs = log_probs.clone()
            part = view.gradient(log_probs, self.tokens, one / view.temperature)
            total = part if total is None else total.add_(part)
        return total


class _OnePass(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        hidden: Tensor,
        weight: Tensor,
        views: tuple[View, ...],
        loss: ChunkLoss,
        vocabulary: int,
        rows: int,
    ) -> tuple[Tensor, ...]:
        used = weight[:vocabulary].to(hidden.dtype)
        total = hidden.new_zeros((), dtype=torch.promote_types(hidden.dtype, torch.float32))
        hidden_gradient = torch.zeros_like(hidden)
        weight_gradient = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None  # type: ignore[attr-defined]
        values: list[list[Tensor]] = [[] for _ in views]
        for tokens in _chunks(hidden.shape[0], rows):
            chunk = _Chunk(hidden, used, views, tokens)
            leaves = [value.requires_grad_() for value in chunk.values()]
            with torch.enable_grad():
                part = loss(leaves, tokens)
                upstream = torch.autograd.grad(part, leaves, allow_unused=True)
            total += part.detach()
            for kept, leaf in zip(values, leaves, strict=True):
                kept.append(leaf.detach())
            gradient = chunk.gradient(upstream)
            if gradient is None:
                continue
            gradient = gradient.to(hidden.dtype)
            torch.mm(gradient, used, out=hidden_gradient[tokens])
            if weight_gradient is not None:
                _add_product(weight_gradient[:vocabulary], gradient.T, hidden[tokens])
        ctx.save_for_backward(hidden_gradient, weight_gradient)  # type: ignore[arg-type]
        joined = [torch.cat(kept) if kept else total.new_zeros(0) for kept in values]
        ctx.mark_non_differentiable(*joined)
        return total, *joined

    @staticmethod
    @once_differentiable
    def backward(ctx: torch.autograd.function.FunctionCtx, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        hidden_gradient, weight_gradient = ctx.saved_tensors  # type: ignore[attr-defined]
        share = upstream[0].to(hidden_gradient.dtype)
        if weight_gradient is not None:
            weight_gradient = weight_gradient.mul_(share)
        return hidden_gradient.mul_(share), weight_gradient, None, None, None, None


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total += left @ right, in the precision of `total`."""
    if total.dtype == right.dtype:
        total.addmm_(left, right)
    else:
        total.add_(left @ right)


class _Recomputed(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx, hidden: Tensor, weight: Tensor, views: tuple[View, ...], rows: int
    ) -> tuple[Tensor, ...]:
        dtype = torch.promote_types(hidden.dtype, torch.float32)
        values = tuple(hidden.new_empty(hidden.shape[0], dtype=dtype) for _ in views)
        for tokens in _chunks(hidden.shape[0], rows):
            for whole, part in zip(values, _Chunk(hidden, weight, views, tokens).values(), strict=True):
                whole[tokens] = part
        ctx.save_for_backward(hidden, weight)
        ctx.views, ctx.rows = views, rows  # type: ignore[attr-defined]
        return values

    @staticmethod
    @once_differentiable
    def backward(ctx: torch.autograd.function.FunctionCtx, *upstream: Tensor | None) -> tuple[Tensor | None, ...]:
        hidden, weight = ctx.saved_tensors  # type: ignore[attr-defined]
        hidden_gradient = torch.empty_like(hidden)
        weight_gradient = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None  # type: ignore[attr-defined]
        for tokens in _chunks(hidden.shape[0], ctx.rows):  # type: ignore[attr-defined]
            chunk = _Chunk(hidden, weight, ctx.views, tokens)  # type: ignore[attr-defined]
            gradient = chunk.gradient([None if one is None else one[tokens] for one in upstream])
            assert gradient is not None  # autograd calls backward only when some output has a gradient
            gradient = gradient.to(weight.dtype)
            hidden_gradient[tokens] = gradient @ weight
            if weight_gradient is not None:
                _add_product(weight_gradient, gradient.T, hidden[tokens])
        return hidden_gradient, weight_gradient, None, None
