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
    """Keys and values of one layer, `[B, heads, capacity, head_dim]`; `update` returns the filled part as a view."""

    is_sliding = False

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.capacity = capacity
        self.length = 0
        self.keys: Tensor
        self.values: Tensor

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        batch, heads, _, width = key_states.shape
        self.keys = key_states.new_empty(batch, heads, self.capacity, width)
        self.values = value_states.new_empty(batch, heads, self.capacity, value_states.shape[-1])
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
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
        self.keys, self.values = keys.new_empty(shape), values.new_empty((*shape[:-1], values.shape[-1]))
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

    def __init__(self, config: PreTrainedConfig, capacity: int) -> None:
        super().__init__(layers=[_layer(layer, capacity) for layer in DynamicCache(config=config).layers])

    def select(self, rows: Tensor) -> None:
        """Keep (or repeat) these rows of the batch in every layer."""
        for layer in self.layers:
            if isinstance(layer, PreallocatedLayer):
                layer.select(rows)
            else:
                layer.reorder_cache(rows)  # type: ignore[arg-type]


def _layer(layer: Any, capacity: int) -> Any:
    return PreallocatedLayer(capacity) if type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) else layer


def row_indices(keep: Tensor) -> Tensor:
    """The positions of the true entries of `keep` `[B]`."""
    return torch.nonzero(keep).squeeze(1)
