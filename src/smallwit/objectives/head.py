"""The chunked language-model head: from hidden states to per-token statistics, without a `[tokens, vocabulary]` tensor.

Names: N tokens, H hidden width, V vocabulary rows, n tokens of one chunk.

A `TokenStatistic` is a number for each token that depends on its next-token distribution. The head projects a chunk of
tokens, lets each statistic reduce `[n, V]` to `[n]`, and drops the chunk. A loss on these vectors is plain autograd:

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

from smallwit.models.cpu_memory import HeadMemory
from smallwit.models.cpu_products import write_product

CHUNK_ELEMENTS = 1 << 24
"""Elements of one chunk of a teacher's logits, of which only the top k are kept: 64 MiB in float32."""

CPU_CHUNK_ELEMENTS = 1 << 26
"""Elements of one chunk of logits on a CPU: each chunk reads the whole head three times."""

GPU_CHUNK_ELEMENTS = 1 << 27
"""The same on a GPU, 512 MiB in float32 and as much for each statistic: with smaller chunks it waits for launches."""

BLOCK_ELEMENTS = 1 << 20
"""Elements that the statistics process at a time on a CPU: they fit into its caches, and their memory is reused."""


Pullback = Callable[[Tensor], Tensor]
"""d(sum of upstream * statistic) / d(z / temperature) `[n, V]`, from `upstream` `[n]`; called once."""


class TokenStatistic(Protocol):
    """One statistic of the distribution softmax(z / temperature) at each token."""

    @property
    def temperature(self) -> float: ...

    def evaluate(self, log_probs: Tensor, tokens: slice, out: Tensor | None) -> tuple[Tensor, Pullback]:
        """Return the statistic `[n]` from the log-probabilities `[n, V]` of the tokens `tokens`, and its pullback.

        The method must not change `log_probs`: other statistics read it too. The pullback may write the derivative to
        `out`, if that is given; otherwise it makes new storage.
        """
        ...


@dataclass(frozen=True)
class LogProb:
    """log p(label): d/dz = onehot(label) - p."""

    labels: Tensor
    temperature: float = 1.0

    def evaluate(self, log_probs: Tensor, tokens: slice, out: Tensor | None) -> tuple[Tensor, Pullback]:
        labels = self.labels[tokens, None]

        def pullback(upstream: Tensor) -> Tensor:
            upstream = upstream[:, None]
            return torch.exp(log_probs, out=out).mul_(-upstream).scatter_add_(1, labels, upstream)

        return log_probs.gather(1, labels).squeeze(1), pullback


@dataclass(frozen=True)
class Entropy:
    """H = -sum p log p, in nats: d/dz = -p (log p + H)."""

    temperature: float = 1.0

    def evaluate(self, log_probs: Tensor, tokens: slice, out: Tensor | None) -> tuple[Tensor, Pullback]:
        # Most often the value is logged and nothing more, so the probabilities are not kept.
        entropy = -log_probs.exp().mul_(log_probs).sum(1)

        def pullback(upstream: Tensor) -> Tensor:
            return torch.add(log_probs, entropy[:, None], out=out).mul_(log_probs.exp()).mul_(-upstream[:, None])

        return entropy, pullback


ChunkLoss = Callable[[Sequence[Tensor], slice], Tensor]
Prepare = Callable[[slice], object]


def token_statistics(
    hidden: Tensor,
    weight: Tensor,
    statistics: Sequence[TokenStatistic],
    *,
    softcap: float | None = None,
    memory: HeadMemory | None = None,
    chunk_elements: int | None = None,
) -> tuple[Tensor, ...]:
    """Return a vector `[N]` in float32 for each statistic, from hidden states `[N, H]` and the head `[V, H]`.

    Differentiable in `hidden` and `weight`. `softcap` bounds logits at cap * tanh(logits / cap). At most
    `chunk_elements` logits exist for one statistic at a time, in `memory`; if absent, `CPU_CHUNK_ELEMENTS` or
    `GPU_CHUNK_ELEMENTS`. Raises `ValueError` if the widths differ.
    """
    _check_widths(hidden, weight)
    layout = _Layout.of(hidden, weight.shape[0], chunk_elements, softcap)
    return _Recomputed.apply(hidden, weight, tuple(statistics), layout, memory or HeadMemory())


def chunked_loss(
    hidden: Tensor,
    weight: Tensor,
    statistics: Sequence[TokenStatistic],
    loss: ChunkLoss,
    *,
    vocabulary: int | None = None,
    prepare: Prepare | None = None,
    softcap: float | None = None,
    memory: HeadMemory | None = None,
    chunk_elements: int | None = None,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Return the sum over blocks of tokens of `loss(values, tokens)`, and the values `[N]` without gradient.

    `values` are those of the block, `[n]` each, `tokens` its slice of 0..N; the loss of a token must depend on that
    token's values alone. Only the first `vocabulary` rows of the head are projected. `prepare(tokens)` is called before
    the statistics are asked for any of these tokens, a chunk at a time, whose logits are in `memory`. The scalar is
    differentiable in `hidden` and `weight`, once. Raises `ValueError` if the widths differ.
    """
    _check_widths(hidden, weight)
    vocabulary = vocabulary or weight.shape[0]
    layout = _Layout.of(hidden, vocabulary, chunk_elements, softcap)
    memory = memory or HeadMemory()
    total, *values = _OnePass.apply(hidden, weight, tuple(statistics), loss, prepare, vocabulary, layout, memory)
    return total, tuple(values)


def softcapped(logits: Tensor, cap: float | None) -> Tensor:
    """Bound logits in place at cap * tanh(logits / cap), unless `cap` is `None` (Gemma 2, arXiv 2408.00118, sec. 2)."""
    return logits if cap is None else logits.div_(cap).tanh_().mul_(cap)


def _check_widths(hidden: Tensor, weight: Tensor) -> None:
    if hidden.dim() != 2 or weight.dim() != 2 or hidden.shape[1] != weight.shape[1]:
        raise ValueError(
            f"the head needs hidden [N, H] and weight [V, H]; got {list(hidden.shape)} and {list(weight.shape)}"
        )


@dataclass(frozen=True)
class _Layout:
    """How many tokens are projected at a time, how many the statistics see at a time, and the cap of the logits."""

    chunk: int
    block: int
    softcap: float | None

    @staticmethod
    def of(hidden: Tensor, vocabulary: int, chunk_elements: int | None, softcap: float | None) -> "_Layout":
        on_cpu = hidden.device.type == "cpu"
        elements = chunk_elements or (CPU_CHUNK_ELEMENTS if on_cpu else GPU_CHUNK_ELEMENTS)
        chunk = max(1, elements // vocabulary)
        block = max(1, min(elements, BLOCK_ELEMENTS) // vocabulary) if on_cpu else chunk
        return _Layout(chunk, block, softcap)


def _slices(start: int, stop: int, size: int) -> Iterator[slice]:
    for first in range(start, stop, size):
        yield slice(first, min(first + size, stop))


class _Chunk:
    """The logits of some tokens. Block by block their gradient overwrites them."""

    def __init__(self, hidden: Tensor, weight: Tensor, tokens: slice, layout: _Layout, memory: HeadMemory) -> None:
        count = tokens.stop - tokens.start
        self.logits = memory.rows(count, weight.shape[0], like=hidden, at_most=layout.chunk)
        softcapped(write_product(hidden[tokens], weight, self.logits), layout.softcap)
        self.tokens, self.layout = tokens, layout

    def blocks(self, statistics: Sequence[TokenStatistic]) -> "Iterator[_Block]":
        for tokens in _slices(self.tokens.start, self.tokens.stop, self.layout.block):
            here = slice(tokens.start - self.tokens.start, tokens.stop - self.tokens.start)
            yield _Block(self.logits[here], statistics, tokens, self.layout.softcap)


class _Block:
    """The log-probabilities of some tokens, at the temperature of each statistic."""

    def __init__(
        self, logits: Tensor, statistics: Sequence[TokenStatistic], tokens: slice, softcap: float | None
    ) -> None:
        self.logits, self.statistics, self.tokens, self.softcap = logits, statistics, tokens, softcap
        dtype = torch.promote_types(logits.dtype, torch.float32)
        self.log_probs = {
            temperature: torch.log_softmax(logits if temperature == 1.0 else logits / temperature, dim=1, dtype=dtype)
            for temperature in {statistic.temperature for statistic in statistics}
        }

    def evaluate(self) -> tuple[list[Tensor], list[Pullback]]:
        """Return the values `[n]` of each statistic, and their pullbacks. Overwrites the logits."""
        found = []
        for place, statistic in enumerate(self.statistics):
            log_probs = self.log_probs[statistic.temperature]
            out = self.logits if place == 0 and self.logits.dtype == log_probs.dtype else None
            found.append(statistic.evaluate(log_probs, self.tokens, out))
        return [value for value, _ in found], [pullback for _, pullback in found]

    def write_gradient(self, pullbacks: Sequence[Pullback], upstream: Sequence[Tensor | None]) -> None:
        """Overwrite the logits with d(sum of upstream * value) / d(logits before the cap)."""
        # d(cap tanh(z / cap)) / dz, before the logits are overwritten.
        slope = None if self.softcap is None else (self.logits / self.softcap).square_().neg_().add_(1.0)
        total: Tensor | None = None
        for statistic, pullback, one in zip(self.statistics, pullbacks, upstream, strict=True):
            if one is not None:
                part = pullback(one / statistic.temperature)
                total = part if total is None else total.add_(part)
        if total is None:
            self.logits.zero_()
        elif total is not self.logits:
            self.logits.copy_(total)
        if slope is not None:
            self.logits.mul_(slope)


class _OnePass(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        hidden: Tensor,
        weight: Tensor,
        statistics: tuple[TokenStatistic, ...],
        loss: ChunkLoss,
        prepare: Prepare | None,
        vocabulary: int,
        layout: _Layout,
        memory: HeadMemory,
    ) -> tuple[Tensor, ...]:
        used = weight[:vocabulary].to(hidden.dtype)
        total = hidden.new_zeros((), dtype=torch.promote_types(hidden.dtype, torch.float32))
        hidden_gradient = torch.zeros_like(hidden)
        weight_gradient = memory.zeros(weight) if ctx.needs_input_grad[1] else None  # type: ignore[attr-defined]
        values: list[list[Tensor]] = [[] for _ in statistics]
        for tokens in _slices(0, hidden.shape[0], layout.chunk):
            if prepare is not None:
                prepare(tokens)
            chunk = _Chunk(hidden, used, tokens, layout, memory)
            for block in chunk.blocks(statistics):
                found, pullbacks = block.evaluate()
                leaves = [value.requires_grad_() for value in found]
                with torch.enable_grad():
                    part = loss(leaves, block.tokens)
                    upstream = torch.autograd.grad(part, leaves, allow_unused=True)
                total += part.detach()
                for kept, leaf in zip(values, leaves, strict=True):
                    kept.append(leaf.detach())
                block.write_gradient(pullbacks, upstream)
            torch.mm(chunk.logits, used, out=hidden_gradient[tokens])
            if weight_gradient is not None:
                _add_product(weight_gradient[:vocabulary], chunk.logits.T, hidden[tokens])
        # Not saved for backward: autograd would have to copy what is saved.
        ctx.gradients = hidden_gradient, weight_gradient  # type: ignore[attr-defined]
        joined = [torch.cat(kept) if kept else total.new_zeros(0) for kept in values]
        ctx.mark_non_differentiable(*joined)
        return total, *joined

    @staticmethod
    @once_differentiable
    def backward(ctx: torch.autograd.function.FunctionCtx, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        hidden_gradient, weight_gradient = ctx.gradients  # type: ignore[attr-defined]
        del ctx.gradients  # type: ignore[attr-defined]
        share = upstream[0].to(hidden_gradient.dtype)
        if weight_gradient is not None:
            weight_gradient = weight_gradient.mul_(share)
        return hidden_gradient.mul_(share), weight_gradient, None, None, None, None, None, None


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total += left @ right, in the precision of `total`."""
    if total.dtype == right.dtype:
        total.addmm_(left, right)
    else:
        total.add_(left @ right)


class _Recomputed(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        hidden: Tensor,
        weight: Tensor,
        statistics: tuple[TokenStatistic, ...],
        layout: _Layout,
        memory: HeadMemory,
    ) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        dtype = torch.promote_types(hidden.dtype, torch.float32)
        values = tuple(hidden.new_empty(hidden.shape[0], dtype=dtype) for _ in statistics)
        for tokens in _slices(0, hidden.shape[0], layout.chunk):
            for block in _Chunk(hidden, weight, tokens, layout, memory).blocks(statistics):
                for whole, part in zip(values, block.evaluate()[0], strict=True):
                    whole[block.tokens] = part
        ctx.save_for_backward(hidden, weight)
        ctx.statistics, ctx.layout, ctx.memory = statistics, layout, memory  # type: ignore[attr-defined]
        return values

    @staticmethod
    @once_differentiable
    def backward(ctx: torch.autograd.function.FunctionCtx, *upstream: Tensor | None) -> tuple[Tensor | None, ...]:
        hidden, weight = ctx.saved_tensors  # type: ignore[attr-defined]
        layout, memory = ctx.layout, ctx.memory  # type: ignore[attr-defined]
        hidden_gradient = torch.empty_like(hidden)
        weight_gradient = memory.zeros(weight) if ctx.needs_input_grad[1] else None  # type: ignore[attr-defined]
        for tokens in _slices(0, hidden.shape[0], layout.chunk):
            chunk = _Chunk(hidden, weight, tokens, layout, memory)
            for block in chunk.blocks(ctx.statistics):  # type: ignore[attr-defined]
                _, pullbacks = block.evaluate()
                block.write_gradient(pullbacks, [None if one is None else one[block.tokens] for one in upstream])
            torch.mm(chunk.logits, weight, out=hidden_gradient[tokens])
            if weight_gradient is not None:
                _add_product(weight_gradient, chunk.logits.T, hidden[tokens])
        return hidden_gradient, weight_gradient, None, None, None
