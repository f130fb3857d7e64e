"""The chunked language-model head: hidden states to per-token statistics, and no `[tokens, vocabulary]` tensor kept.

Names: N tokens, H hidden width, V vocabulary rows, n tokens of one chunk.

A `View` is one statistic of the next-token distribution at every token. The head projects a chunk of tokens, lets each
view reduce `[n, V]` to `[n]`, and drops the chunk; backward projects again and adds each view's analytic gradient.
Ordinary autograd works on the `[N]` vectors that come out, so what an algorithm does with them is plain code.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

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
        """d(sum of upstream * value) / d(z / temperature): `[n, V]` from `[n, V]` and `[n]`."""
        ...


@dataclass(frozen=True)
class LogProb:
    """log p(label): d/dz = onehot(label) - p."""

    labels: Tensor
    temperature: float = 1.0

    def value(self, log_probs: Tensor, tokens: slice) -> Tensor:
        return log_probs.gather(1, self.labels[tokens, None]).squeeze(1)

    def gradient(self, log_probs: Tensor, tokens: slice, upstream: Tensor) -> Tensor:
        gradient = log_probs.exp().mul_(-upstream[:, None])
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
    if hidden.dim() != 2 or weight.dim() != 2 or hidden.shape[1] != weight.shape[1]:
        raise ValueError(
            f"token_statistics needs hidden [N, H] and weight [V, H]; got {list(hidden.shape)} and {list(weight.shape)}"
        )
    rows = max(1, chunk_elements // weight.shape[0])
    return _ChunkedHead.apply(hidden, weight, tuple(views), rows)


def _log_probs(logits: Tensor, temperature: float) -> Tensor:
    scaled = logits if temperature == 1.0 else logits / temperature
    return torch.log_softmax(scaled, dim=1, dtype=torch.promote_types(logits.dtype, torch.float32))


def _by_temperature(views: Sequence[View]) -> dict[float, list[int]]:
    groups: dict[float, list[int]] = {}
    for index, view in enumerate(views):
        groups.setdefault(view.temperature, []).append(index)
    return groups


class _ChunkedHead(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx, hidden: Tensor, weight: Tensor, views: tuple[View, ...], rows: int
    ) -> tuple[Tensor, ...]:
        dtype = torch.promote_types(hidden.dtype, torch.float32)
        values = tuple(hidden.new_empty(hidden.shape[0], dtype=dtype) for _ in views)
        for start in range(0, hidden.shape[0], rows):
            tokens = slice(start, min(start + rows, hidden.shape[0]))
            logits = hidden[tokens] @ weight.T
            for temperature, indices in _by_temperature(views).items():
                log_probs = _log_probs(logits, temperature)
                for index in indices:
                    values[index][tokens] = views[index].value(log_probs, tokens)
        ctx.save_for_backward(hidden, weight)
        ctx.views, ctx.rows = views, rows  # type: ignore[attr-defined]
        return values

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight = ctx.saved_tensors  # type: ignore[attr-defined]
        views, rows = ctx.views, ctx.rows  # type: ignore[attr-defined]
        hidden_gradient = torch.empty_like(hidden)
        weight_gradient = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None  # type: ignore[attr-defined]
        used = [index for index, gradient in enumerate(upstream) if gradient is not None]
        for start in range(0, hidden.shape[0], rows):
            tokens = slice(start, min(start + rows, hidden.shape[0]))
            logits = hidden[tokens] @ weight.T
            gradient: Tensor | None = None
            for temperature, indices in _by_temperature(views).items():
                log_probs = _log_probs(logits, temperature)
                for index in (i for i in indices if i in used):
                    part = views[index].gradient(log_probs, tokens, upstream[index][tokens] / temperature)
                    gradient = part if gradient is None else gradient.add_(part)
            assert gradient is not None  # autograd calls backward only when some output has a gradient
            gradient = gradient.to(weight.dtype)
            hidden_gradient[tokens] = gradient @ weight
            if weight_gradient is not None:
                weight_gradient.addmm_(gradient.T, hidden[tokens])
        return hidden_gradient, weight_gradient, None, None
