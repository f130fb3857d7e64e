"""One more token for each row of a batch: layer by layer, or by a captured CUDA graph.

On a GPU the launches of a decoding step take several times as long as its arithmetic. A graph launches them all at
once. It holds addresses and shapes: of the rows, the cache, and the number of keys that are looked at.
"""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel

from smallwit.inference.cache import RolloutCache
from smallwit.models.attention import RowLayout, StaticLayout

GRAPHED = frozenset({"gemma2", "gemma3_text", "llama", "mistral", "olmo2", "qwen2", "qwen3", "smollm3"})
"""Model types whose decoding was compared with and without graphs on a GPU. Experts wait for the host in mid-step."""

KEYS_A_GRAPH = 256
"""A graph is captured anew after so many tokens: each looks at a multiple of as many keys."""

Forward = Callable[[Tensor, Tensor, RolloutCache, RowLayout | StaticLayout], Tensor]
"""Hidden states `[B, T, H]` of tokens `[B, T]` at positions `[B, T]`."""


class Decoder(Protocol):
    """What gives the hidden states `[B, H]` of one more token a row, and writes its keys into the cache."""

    @property
    def shrink_below(self) -> float:
        """The share of live rows below which they move to a smaller batch: that costs a pass over the cache."""
        ...

    def __call__(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Take tokens `[B]` and their positions `[B]`."""
        ...

    def select(self, rows: Tensor) -> "Decoder":
        """Return the decoder of these rows alone, once the cache has no others."""
        ...


class EagerDecoder:
    """Walks through the layers."""

    shrink_below = 0.75

    def __init__(self, forward: Forward, cache: RolloutCache, layout: RowLayout) -> None:
        self.forward, self.cache, self.layout = forward, cache, layout

    def __call__(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """See `Decoder`."""
        return self.forward(tokens[:, None], positions[:, None], self.cache, self.layout)[:, -1]

    def select(self, rows: Tensor) -> "EagerDecoder":
        """See `Decoder`."""
        return EagerDecoder(self.forward, self.cache, self.layout.select(rows))


Run = Callable[[], Tensor]


class GraphedDecoder:
    """Replays a graph. `key_positions` `[B, capacity]` are those of `StaticLayout`; `capture` makes a pass one that is
    replayed."""

    shrink_below = 0.5

    def __init__(
        self, forward: Forward, cache: RolloutCache, key_positions: Tensor, capture: Callable[[Run], Run]
    ) -> None:
        self.forward, self.cache, self.key_positions, self.capture = forward, cache, key_positions, capture
        device, rows = key_positions.device, len(key_positions)
        self.tokens = torch.zeros(rows, 1, dtype=torch.long, device=device)
        self.positions = torch.zeros_like(self.tokens)
        self.column = torch.zeros(1, dtype=torch.long, device=device)
        self.visible = 0
        self.replay: Run | None = None

    def __call__(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """See `Decoder`."""
        written = self.cache.get_seq_length()
        self.tokens.copy_(tokens[:, None])
        self.positions.copy_(positions[:, None])
        self.column.fill_(written)
        if self.replay is None or written >= self.visible:
            self.replay = self._captured(written)
        states = self.replay()
        self.cache.grow()
        return states[:, -1]

    def _captured(self, written: int) -> Run:
        self.replay = None  # its memory first
        capacity = self.key_positions.shape[1]
        self.visible = min(capacity, (written // KEYS_A_GRAPH + 1) * KEYS_A_GRAPH)
        self.cache.write_at(self.column, self.visible)
        layout = StaticLayout(self.key_positions[:, : self.visible], self.column)
        # Run again it writes the same keys at the same place.
        return self.capture(lambda: self.forward(self.tokens, self.positions, self.cache, layout))

    def select(self, rows: Tensor) -> "GraphedDecoder":
        """See `Decoder`."""
        return GraphedDecoder(self.forward, self.cache, self.key_positions[rows], self.capture)


def cuda_graph(run: Run) -> Run:
    """Capture a pass on the GPU; what it returns is overwritten by the next replay."""
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        run()  # kernels are chosen, and autocast's copies of the weights made, outside of the graph
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        states = run()

    def replay() -> Tensor:
        graph.replay()
        return states

    return replay


def can_be_graphed(model: PreTrainedModel) -> bool:
    """Whether decoding with this model is captured: on a GPU, of a type in `GRAPHED`, and without scaling of positions
    that depends on their values."""
    ropes: Any = getattr(model.config, "rope_parameters", None) or {}
    changing = any(kind in str(ropes) for kind in ("dynamic", "longrope"))
    return model.device.type == "cuda" and model.config.model_type in GRAPHED and not changing
