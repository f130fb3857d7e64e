"""A key-value cache of slots: each holds one sequence, from its first token on, and is written in place.

Slots in use are the first ones. Of layers that keep a state in place of keys (Mamba, short convolutions) transformers'
own objects hold it, of all slots in use.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedConfig
from transformers.cache_utils import (
    Cache,
    CacheLayerMixin,
    DynamicCache,
    DynamicLayer,
    DynamicSlidingWindowLayer,
)


@dataclass(frozen=True)
class Piece:
    """A sequence of a prefill: tokens `start` to `stop` of row `row`, for `count` slots from `slot` on."""

    row: int
    start: int
    stop: int
    slot: int
    count: int = 1


@dataclass(frozen=True)
class PrefillPass:
    """Prompts, or what all prompts begin with: that has no pieces, and is kept beside the slots."""

    pieces: tuple[Piece, ...]


@dataclass(frozen=True)
class DecodePass:
    """One token of each of the first slots, at `columns` `[B]`; attention looks at the first `visible` keys."""

    rows: Tensor
    columns: Tensor
    visible: int


class SlotLayer(CacheLayerMixin):
    """Keys and values of one layer, `[slots, heads, capacity, head_dim]`, zero where nothing was written.

    0 times what is not written must be 0: a mask hides it from scores, and its value still is a factor.
    """

    is_sliding = False

    def __init__(self, slots: int, capacity: int) -> None:
        super().__init__()
        self.slots, self.capacity = slots, capacity
        self.now: PrefillPass | DecodePass
        self.prefix: tuple[Tensor, Tensor] | None = None
        self.keys: Tensor
        self.values: Tensor

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        heads = key_states.shape[1]
        self.keys = key_states.new_zeros(self.slots, heads, self.capacity, key_states.shape[-1])
        self.values = value_states.new_zeros(self.slots, heads, self.capacity, value_states.shape[-1])
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        if isinstance(self.now, DecodePass):
            rows, columns, visible = self.now.rows, self.now.columns, self.now.visible
            self.keys[rows, :, columns] = key_states[:, :, 0]
            self.values[rows, :, columns] = value_states[:, :, 0]
            return self.keys[: len(rows), :, :visible], self.values[: len(rows), :, :visible]
        if not self.now.pieces:
            self.prefix = key_states, value_states
            return key_states, value_states
        return self._prefill(self.keys, key_states, 0), self._prefill(self.values, value_states, 1)

    def _prefill(self, held: Tensor, states: Tensor, which: int) -> Tensor:
        """Write the pieces behind the prefix, and return prefix and states, `[B, heads, T, head_dim]`."""
        assert isinstance(self.now, PrefillPass)
        prefix = None if self.prefix is None else self.prefix[which]
        width = 0 if prefix is None else prefix.shape[2]
        for piece in self.now.pieces:
            slots = held[piece.slot : piece.slot + piece.count]
            if prefix is not None:
                slots[:, :, :width] = prefix
            slots[:, :, width : width + piece.stop - piece.start] = states[piece.row, None, :, piece.start : piece.stop]
        return states if prefix is None else torch.cat([prefix.expand(len(states), -1, -1, -1), states], 2)

    def copy(self, source: int, target: int, count: int, length: int) -> None:
        """Copy the first tokens of a slot to `count` slots from `target` on."""
        for held in (self.keys, self.values) if self.is_initialized else ():
            held[target : target + count, :, :length] = held[source, None, :, :length]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        if isinstance(self.now, DecodePass):
            return self.now.visible, 0
        return query_length + (0 if self.prefix is None or not self.now.pieces else self.prefix[0].shape[2]), 0

    def get_seq_length(self) -> int:
        return self.get_mask_sizes(0)[0] - isinstance(self.now, DecodePass)

    def get_max_cache_shape(self) -> int:
        return self.capacity

    def get_max_length(self) -> int:
        return self.capacity


class SlotCache(Cache):
    """Hold a `SlotLayer` for each layer that attends, and transformers' own state for the others."""

    def __init__(self, config: PreTrainedConfig, slots: int, capacity: int) -> None:
        super().__init__(layers=[_layer(layer, slots, capacity) for layer in DynamicCache(config=config).layers])
        self.slots, self.capacity = slots, capacity

    def begin(self, now: PrefillPass | DecodePass) -> None:
        """Say what the next forward pass does."""
        for layer in self._slot_layers():
            layer.now = now

    @property
    def shared(self) -> int:
        """The number of tokens that all slots begin with."""
        kept = (layer.prefix[0].shape[2] for layer in self._slot_layers() if layer.prefix is not None)
        return next(kept, 0)

    def drop_prefix(self) -> None:
        """Forget what all prompts began with."""
        for layer in self._slot_layers():
            layer.prefix = None

    def copy(self, source: int, target: int, count: int, length: int) -> None:
        """Copy the first tokens of a slot to `count` slots from `target` on."""
        for layer in self._slot_layers():
            layer.copy(source, target, count, length)

    def order_states(self, slots: Sequence[int]) -> None:
        """Keep (or repeat) the states of these slots, in this order, in layers that have states."""
        for layer in self.layers:
            if not isinstance(layer, SlotLayer):
                layer.reorder_cache(torch.tensor(slots))  # type: ignore[arg-type]

    def _slot_layers(self) -> list[SlotLayer]:
        return [layer for layer in self.layers if isinstance(layer, SlotLayer)]


def _layer(layer: Any, slots: int, capacity: int) -> Any:
    attends = type(layer) in (DynamicLayer, DynamicSlidingWindowLayer)
    return SlotLayer(slots, capacity) if attends else layer


def bytes_per_token(config: Any, item: int) -> int:
    """Return an upper bound on the bytes of one token's keys and values in all layers, `item` bytes a number.

    It is 0 for a model whose layers have states alone.
    """
    config = config.get_text_config()
    queries = getattr(config, "num_attention_heads", None)
    if not queries:
        return 0
    heads = getattr(config, "num_key_value_heads", None) or queries
    width = getattr(config, "head_dim", None) or config.hidden_size // queries
    return 2 * item * int(heads) * int(width) * int(config.num_hidden_layers)
