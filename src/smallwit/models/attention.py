"""One attention function for training, packed rows, prefill and decoding, registered with transformers.

transformers asks a mask function for each kind of layer and hands its result to every layer's attention. Here that
result is an `AttentionPlan`: the lengths of the rows and the layer's window, in place of a `[T, T]` mask.

Names: B rows, T query tokens, S key tokens, H query heads, K key-value heads, G = H / K, D head width.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from inspect import signature
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import dropout as drop
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

ATTENTION = "smallwit"
"""The name to give transformers as `attn_implementation`."""

QUERY_BLOCK = 256
"""Queries of one block where a mask is needed: the mask of a block is at most `[QUERY_BLOCK, window + QUERY_BLOCK]`."""


class UnsupportedAttention(RuntimeError):
    """A model asks for attention that this function does not compute."""


class Segment(NamedTuple):
    """A sequence of a packed row, tokens `start` to `stop`; it continues the span `behind` of the row, if given."""

    row: int
    start: int
    stop: int
    behind: tuple[int, int] | None = None


@dataclass(frozen=True)
class RowLayout:
    """Where sequences lie in the rows of a forward pass.

    By default each row is one sequence, padded on the right: causal attention hides padding from every real token.
    `segments` has each sequence of packed rows, in order, one right behind the other. If there are more keys than
    queries, the first keys are a prefix that every sequence sees.
    """

    segments: tuple[Segment, ...] | None = None

    def plan(self, window: int | None, queries: int, keys: int, dtype: torch.dtype) -> "AttentionPlan":
        """Return the plan of the layers with this window for a pass of `queries` tokens a row over `keys` keys."""
        if queries > 1:
            return AttentionPlan(self.segments, window)
        return AttentionPlan(None, window, 0 if window is None else max(0, keys - window))


@dataclass(frozen=True)
class DecodeLayout:
    """Where the keys of single query tokens lie: key j of a row is that of its token j.

    `positions` `[B]` are those of the queries; keys behind them are of sequences that were there before. If the host
    knows the `shortest` and the `longest` position, layers with a window skip what none of the rows sees, and rows of
    one length need no mask. A captured graph knows neither: all of it is computed on the device. All rows begin with
    the same `shared` tokens, and each has more.
    """

    positions: Tensor
    shortest: int | None = None
    longest: int | None = None
    shared: int = 0

    def plan(self, window: int | None, queries: int, keys: int, dtype: torch.dtype) -> "AttentionPlan":
        """Return the plan of `RowLayout.plan` for one query."""
        first = 0 if window is None or self.shortest is None else max(0, self.shortest + 1 - window)
        shared = 0 if window is not None else self.shared
        if self.shortest is not None and self.shortest == self.longest:
            return AttentionPlan(None, window, first, shared=shared)
        columns, positions = torch.arange(first, keys, device=self.positions.device), self.positions[:, None]
        hidden = columns > positions
        if window is not None:
            hidden |= columns <= positions - window
        bias = torch.zeros(hidden.shape, dtype=dtype, device=positions.device).masked_fill_(hidden, -torch.inf)
        return AttentionPlan(None, window, first, bias[:, None, None], shared)


@dataclass(frozen=True)
class AttentionPlan:
    """What a layer's queries may see: its `window`, and the rows' `segments` (see `RowLayout`).

    Of a single query a row: the keys from `first_key` on, with `mask` `[B, 1, 1, S - first_key]` added to scores; the
    first `shared` keys are the same in all rows.
    """

    segments: tuple[Segment, ...] | None
    window: int | None
    first_key: int = 0
    mask: Tensor | None = None
    shared: int = 0


_ONE_A_ROW = RowLayout()
_LAYOUT: ContextVar[RowLayout | DecodeLayout] = ContextVar("row_layout", default=_ONE_A_ROW)


@contextmanager
def row_layout(layout: RowLayout | DecodeLayout) -> Iterator[None]:
    """Set the layout of the rows of all forward passes inside of the block."""
    token = _LAYOUT.set(layout)
    try:
        yield
    finally:
        _LAYOUT.reset(token)


def register() -> None:
    """Register attention and masks with transformers under the name `ATTENTION`."""
    AttentionInterface.register(ATTENTION, attention_forward)
    AttentionMaskInterface.register(ATTENTION, make_plan)


def require_attention(model: Any) -> None:
    """Raise `ValueError` for a model with another attention: it would ignore the row layout."""
    found = model.config._attn_implementation
    if found != ATTENTION:
        raise ValueError(f"the model attends by '{found}'; load it with attn_implementation='{ATTENTION}'")


def make_plan(
    *,
    q_length: int,
    kv_length: int,
    config: Any,
    dtype: torch.dtype,
    attention_mask: Tensor | None = None,
    local_size: int | None = None,
    use_vmap: bool = False,
    **_: Any,
) -> AttentionPlan:
    """Return the plan of one kind of layer, where transformers asks for its mask.

    Raises `UnsupportedAttention` for masks that are neither causal nor a sliding window, and for a mask of padding.
    """
    if attention_mask is not None:
        raise UnsupportedAttention("it makes a mask of padding by itself; rows are told by row_layout alone")
    if use_vmap or not getattr(config, "is_causal", True):
        raise UnsupportedAttention(f"{config.model_type}: its layers want a mask that is not causal")
    if local_size is not None and local_size == getattr(config, "attention_chunk_size", None):
        raise UnsupportedAttention(f"{config.model_type}: attention in chunks (attention_chunk_size) is not supported")
    return _LAYOUT.get().plan(local_size, q_length, kv_length, dtype)


def attention_forward(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: AttentionPlan,
    dropout: float = 0.0,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    position_bias: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Return attention `[B, T, H, D]` of `query` `[B, H, T, D]` on `key` and `value` `[B, K, S, D]`.

    `softcap` caps scores at cap * tanh(score / cap) (Gemma 2, arXiv 2408.00118, section 2); `s_aux` `[H]` are sinks,
    scores of a key without a value. Raises `UnsupportedAttention` without a plan of `make_plan`, or with a bias by
    position.
    """
    plan = attention_mask
    if not isinstance(plan, AttentionPlan) or position_bias is not None:
        what = "a bias by position" if position_bias is not None else "a mask of its own making"
        raise UnsupportedAttention(f"{type(module).__name__} attends with {what}, which is not supported")
    if torch.is_autocast_enabled(query.device.type):
        # As in scaled_dot_product_attention; the rotation by positions has made queries and keys float32.
        half = torch.get_autocast_dtype(query.device.type)
        query, key, value = query.to(half), key.to(half), value.to(half)
    if scaling is None:
        scaling = query.shape[-1] ** -0.5
    scores = _Scores(scaling, dropout, softcap, s_aux)
    if query.shape[2] == 1 and key.shape[2] > 1:
        visible = slice(plan.first_key, None)
        attend = scores.attend
        if plan.shared and scores.plain and query.device.type == "cpu":
            attend = partial(scores.attend_shared, plan.shared)
        mixed = attend(query, key[:, :, visible], value[:, :, visible], plan.mask).transpose(1, 2)
    elif scores.plain and _wants_varlen(query, key, plan) and _has_varlen_kernel(query, value):
        mixed = _varlen(query, key, value, plan, scaling)
    elif plan.segments is None:
        mixed = _causal(query, key, value, plan.window, scores).transpose(1, 2)
    else:
        mixed = _by_segment(query, key, value, plan.segments, plan.window, scores)
    return mixed.contiguous(), None


@dataclass(frozen=True)
class _Scores:
    """How scores become weights."""

    scaling: float
    dropout: float
    softcap: float | None
    sinks: Tensor | None

    @property
    def plain(self) -> bool:
        """Return whether a fused kernel computes them."""
        return self.softcap is None and self.sinks is None and self.dropout == 0.0

    def causal(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Return full causal attention of as many queries as keys."""
        return scaled_dot_product_attention(
            query, key, value, dropout_p=self.dropout, is_causal=True, scale=self.scaling, enable_gqa=True
        )

    def attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """Return attention under a mask `[B or 1, 1, T or 1, S]` that is added to scores, or on all keys.

        The heads that share keys are concatenated as queries, so that no key is repeated.
        """
        rows, heads, queries, _ = query.shape
        group = heads // key.shape[1]
        folded = query.reshape(rows, key.shape[1], group * queries, -1) if group > 1 else query
        if mask is not None and mask.shape[2] > 1 and group > 1:
            mask = mask.repeat(1, 1, group, 1)
        if self.softcap is None and self.sinks is None:
            mixed = scaled_dot_product_attention(
                folded, key, value, attn_mask=mask, dropout_p=self.dropout, scale=self.scaling
            )
        else:
            mixed = self._explicit(folded, key, value, mask, queries)
        return mixed.reshape(rows, heads, queries, -1)

    def attend_shared(self, shared: int, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """Return what `attend` does for one query a row, without gradient; the first `shared` keys are read once.

        Attention to them and to the others is put together by its normalisers ("Hydragen", arXiv 2402.05099, eq. 4).
        """
        rows, heads, _, _ = query.shape
        kv_heads = key.shape[1]
        folded = query.reshape(rows, kv_heads, heads // kv_heads, -1)
        # torch tells the normalisers by this function alone.
        fused = partial(torch.ops.aten._scaled_dot_product_flash_attention_for_cpu, scale=self.scaling)
        together = folded.transpose(0, 1).reshape(1, kv_heads, -1, folded.shape[-1])
        common, common_norm = fused(together, key[:1, :, :shared], value[:1, :, :shared])
        common = common.reshape(kv_heads, rows, -1, value.shape[-1]).transpose(0, 1)
        common_norm = common_norm.reshape(kv_heads, rows, -1).transpose(0, 1)
        own_mask = None if mask is None else mask[..., shared:]
        own, own_norm = fused(folded, key[:, :, shared:], value[:, :, shared:], attn_mask=own_mask)
        mixed = torch.lerp(own, common, torch.sigmoid(common_norm - own_norm)[..., None].to(own.dtype))
        return mixed.reshape(rows, heads, 1, -1)

    def _explicit(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, queries: int) -> Tensor:
        scores = (query @ key.transpose(2, 3)) * self.scaling
        if self.softcap is not None:
            scores = self.softcap * torch.tanh(scores / self.softcap)
        if mask is not None:
            scores = scores + mask
        if self.sinks is not None:
            sinks = self.sinks.to(scores.dtype).reshape(1, key.shape[1], -1, 1).repeat_interleave(queries, 2)
            scores = torch.cat([scores, sinks.expand(len(scores), -1, -1, -1)], 3)
        weights = torch.softmax(scores, 3, dtype=torch.float32).to(query.dtype)[..., : key.shape[2]]
        return drop(weights, self.dropout) @ value


def _causal(query: Tensor, key: Tensor, value: Tensor, window: int | None, scores: _Scores) -> Tensor:
    """Return causal attention `[B, H, T, D]` of rows whose last T keys are those of the queries."""
    queries, keys = query.shape[2], key.shape[2]
    far = window is not None and keys > window
    grouped = query.shape[1] != key.shape[1]
    # The fused kernels of CUDA share keys between heads in half precision alone.
    shares = not grouped or query.device.type == "cpu" or query.dtype != torch.float32
    if queries == keys and not far and shares and scores.softcap is None and scores.sinks is None:
        return scores.causal(query, key, value)
    parts = []
    size = QUERY_BLOCK if window is None else max(32, min(QUERY_BLOCK, window))
    for start in range(0, queries, size):
        stop = min(start + size, queries)
        first = 0 if window is None else max(0, keys - queries + start - window + 1)
        last = keys - queries + stop
        mask = _block_mask(query, keys - queries + start - first, stop - start, last - first, window)
        here = slice(first, last)
        parts.append(scores.attend(query[:, :, start:stop], key[:, :, here], value[:, :, here], mask))
    return torch.cat(parts, 2)


def _block_mask(like: Tensor, offset: int, queries: int, keys: int, window: int | None) -> Tensor:
    """Return the mask `[1, 1, queries, keys]` of queries of which the first stands at key `offset`."""
    distance = torch.arange(offset, offset + queries, device=like.device)[:, None]
    distance = distance - torch.arange(keys, device=like.device)[None]
    hidden = distance < 0 if window is None else (distance < 0) | (distance >= window)
    return torch.zeros(queries, keys, dtype=like.dtype, device=like.device).masked_fill_(hidden, -torch.inf)[None, None]


def _by_segment(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    segments: Sequence[Segment],
    window: int | None,
    scores: _Scores,
) -> Tensor:
    """Return attention `[B, T, H, D]` of packed rows, one sequence after the other; zeros for padding."""
    _, heads, width, _ = query.shape
    prefix = key.shape[2] - width
    mixed = []
    # Split, and not sliced: the gradient of each slice would be as large as the whole.
    for row, (q, k, v) in enumerate(zip(query.split(1), key.split(1), value.split(1), strict=True)):
        own = [segment for segment in segments if segment.row == row]
        sizes = [segment.stop - segment.start for segment in own]
        missing = width - sum(sizes)
        queries = q.split([*sizes, missing], 2)
        (k_common, *keys), (v_common, *values) = (each.split([prefix, *sizes, missing], 2) for each in (k, v))
        place = {(segment.start, segment.stop): i for i, segment in enumerate(own)}
        parts = []
        for i, segment in enumerate(own):
            before = k_common, v_common
            if segment.behind is not None:
                before = keys[place[segment.behind]], values[place[segment.behind]]
            k_seen, v_seen = (
                torch.cat([first, each], 2) if first.shape[2] else each
                for first, each in zip(before, (keys[i], values[i]), strict=True)
            )
            parts.append(_causal(queries[i], k_seen, v_seen, window, scores).transpose(1, 2))
        parts.append(query.new_zeros(1, missing, heads, value.shape[-1]))
        mixed.append(torch.cat(parts, 1))
    return torch.cat(mixed)


def _wants_varlen(query: Tensor, key: Tensor, plan: AttentionPlan) -> bool:
    """Return whether `scaled_dot_product_attention` would need several calls, or a mask.

    The kernel has no prefix that sequences share.
    """
    if plan.segments is not None and any(segment.behind for segment in plan.segments):
        return False
    far = plan.window is not None and key.shape[2] > plan.window
    behind = query.shape[2] != key.shape[2]
    return not behind if plan.segments is not None else far or behind


def _has_varlen_kernel(query: Tensor, value: Tensor) -> bool:
    fits = query.dtype in (torch.bfloat16, torch.float16) and query.shape[-1] == value.shape[-1] <= 256
    return fits and query.device.type == "cuda" and _varlen_attn() is not None


@cache
def _varlen_attn() -> tuple[Callable[..., Any], bool] | None:
    """Return torch's kernel and whether it wants to be told of shared keys, or `None` before it took windows."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    taken = set(signature(varlen_attn).parameters)
    return (varlen_attn, "enable_gqa" in taken) if {"scale", "window_size"} <= taken else None


@lru_cache(maxsize=16)
def _on_device(ends: tuple[int, ...], device: torch.device) -> Tensor:
    """Return the ends of sequences, which all layers of a forward pass ask for: each copy waits for the device."""
    return torch.tensor(ends, dtype=torch.int32, device=device)


def _varlen(query: Tensor, key: Tensor, value: Tensor, plan: AttentionPlan, scaling: float) -> Tensor:
    """Return attention `[B, T, H, D]` by torch's kernel for sequences of unlike lengths; padding is a sequence too."""
    found = _varlen_attn()
    assert found is not None
    kernel, told_of_groups = found
    rows, queries, keys = query.shape[0], query.shape[2], key.shape[2]
    if plan.segments is None:
        query_ends, key_ends = [[size * row for row in range(rows + 1)] for size in (queries, keys)]
    else:
        edges = {size * queries for size in range(rows + 1)}
        edges |= {row * queries + edge for row, start, stop, _ in plan.segments for edge in (start, stop)}
        query_ends = key_ends = sorted(edges)
    cumulative = [_on_device(tuple(ends), query.device) for ends in (query_ends, key_ends)]
    longest = [max(b - a for a, b in pairwise(ends)) for ends in (query_ends, key_ends)]
    flat = [states.transpose(1, 2).reshape(-1, states.shape[1], states.shape[3]) for states in (query, key, value)]
    window = (-1 if plan.window is None else plan.window - 1, 0)
    groups = {"enable_gqa": query.shape[1] != key.shape[1]} if told_of_groups else {}
    mixed: Any = kernel(*flat, *cumulative, *longest, scale=scaling, window_size=window, **groups)
    return mixed.view(rows, queries, query.shape[1], -1)


register()
