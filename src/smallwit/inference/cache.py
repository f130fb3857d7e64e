"""A key-value cache that is allocated once, written in place, and can drop rows that have ended."""

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


class PreallocatedLayer(CacheLayerMixin):
    """Keys and values of one layer, `[B, heads, capacity, head_dim]`; `update` returns the filled part as a view.

    With `column`, a tensor of one number, it writes there instead and returns the first `visible` keys, also those that
    are not written; nothing of that depends on `length`, which then is counted by `RolloutCache.grow`. Such a layer is
    `zeroed`: 0 times what is not written must be 0.
    """

    is_sliding = False

    def __init__(self, capacity: int, zeroed: bool) -> None:
        super().__init__()
        self.capacity, self.zeroed = capacity, zeroed
        self.length = 0
        self.column: Tensor | None = None
        self.visible = 0
        self.keys: Tensor
        self.values: Tensor

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        batch, heads, _, width = key_states.shape
        device = key_states.device.type
        # Under autocast, what attention would make of them at every step.
        half = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else key_states.dtype
        self.keys = self._room(key_states, (batch, heads, self.capacity, width), half)
        self.values = self._room(value_states, (batch, heads, self.capacity, value_states.shape[-1]), half)
        self.is_initialized = True

    def _room(self, like: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return (torch.zeros if self.zeroed else torch.empty)(shape, dtype=dtype, device=like.device)

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        if self.column is not None:
            self.keys.index_copy_(2, self.column, key_states.to(self.keys.dtype))
            self.values.index_copy_(2, self.column, value_states.to(self.values.dtype))
            return self.keys[:, :, : self.visible], self.values[:, :, : self.visible]
        end = self.length + key_states.shape[2]
        self.keys[:, :, self.length : end] = key_states
        self.values[:, :, self.length : end] = value_states
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def select(self, rows: Tensor) -> None:
        """Keep (or repeat) these rows of the batch."""
        if not self.is_initialized:  # a layer that uses the keys of another
            return
        keys, values = self.keys, self.values
        shape = (len(rows), *keys.shape[1:])
        self.keys = self._room(keys, shape, keys.dtype)
        self.values = self._room(values, (*shape[:-1], values.shape[-1]), values.dtype)
        self.keys[:, :, : self.length] = keys[rows, :, : self.length]
        self.values[:, :, : self.length] = values[rows, :, : self.length]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.length + query_length, 0

    def get_seq_length(self) -> int:
        return self.length

    def get_max_cache_shape(self) -> int:
        return self.capacity

    def get_max_length(self) -> int:
        return self.capacity


class RolloutCache(Cache):
    """Hold a `PreallocatedLayer` for each layer that attends, and transformers' own state for the others."""

    def __init__(self, config: PreTrainedConfig, capacity: int, zeroed: bool = False) -> None:
        super().__init__(layers=[_layer(layer, capacity, zeroed) for layer in DynamicCache(config=config).layers])

    def write_at(self, column: Tensor, visible: int) -> None:
        """Let every layer write at `column` `[1]` and return its first `visible` keys."""
        for layer in self._preallocated():
            layer.column, layer.visible = column, visible

    def grow(self) -> None:
        """Count a column that was written."""
        for layer in self._preallocated():
            layer.length += 1

    def _preallocated(self) -> list[PreallocatedLayer]:
        return [layer for layer in self.layers if isinstance(layer, PreallocatedLayer)]

    def select(self, rows: Tensor) -> None:
        """Keep (or repeat) these rows of the batch in every layer."""
        for layer in self.layers:
            if isinstance(layer, PreallocatedLayer):
                layer.select(rows)
            else:
                layer.reorder_cache(rows)  # type: ignore[arg-type]


def _layer(layer: Any, capacity: int, zeroed: bool) -> Any:
    attends = type(layer) in (DynamicLayer, DynamicSlidingWindowLayer)
    return PreallocatedLayer(capacity, zeroed) if attends else layer


def row_indices(keep: Tensor) -> Tensor:
    """The positions of the true entries of `keep` `[B]`."""
    return torch.nonzero(keep).squeeze(1)
