"""One more token for each row of a batch: layer by layer, or by captured CUDA graphs.

On a GPU the launches of a decoding step take several times as long as its arithmetic. A graph launches them all at
once. It holds addresses and shapes: of the weights, of the cache, of the rows, and of the keys that are looked at.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel

from smallwit.inference.slot_cache import DecodePass, SlotCache
from smallwit.models.attention import DecodeLayout, RowLayout

GRAPHED = frozenset({"gemma2", "gemma3_text", "llama", "mistral", "olmo2", "qwen2", "qwen3", "smollm3"})
"""Model types whose decoding was compared with and without graphs on a GPU. Experts wait for the host in mid-step."""

KEYS_A_GRAPH = 256
"""The keys that a graph looks at are a multiple of this."""
FEWEST_ROWS = 8
"""The rows of a graph are a power of two, at least this many."""

Forward = Callable[[Tensor, Tensor, SlotCache, RowLayout | DecodeLayout], Tensor]
"""Hidden states `[B, T, H]` of tokens `[B, T]` at positions `[B, T]`."""


class Decoder(Protocol):
    """What gives the hidden states `[B, H]` of one more token of each of the first slots."""

    def __call__(self, cache: SlotCache, tokens: Sequence[int], positions: Sequence[int]) -> Tensor:
        """Take the rows' last tokens and their positions, and write their keys into the cache."""
        ...


class EagerDecoder:
    """Walks through the layers."""

    def __init__(self, forward: Forward, device: torch.device, *, stateful: bool = False) -> None:
        self.forward, self.device, self.stateful = forward, device, stateful

    def __call__(self, cache: SlotCache, tokens: Sequence[int], positions: Sequence[int]) -> Tensor:
        """See `Decoder`."""
        both = torch.tensor([tokens, positions], device=self.device)
        shortest, longest = min(positions), max(positions)
        cache.begin(DecodePass(torch.arange(len(tokens), device=self.device), both[1], longest + 1))
        # Rows of a model with a state are of one length, and some of its layers keep no more keys than their window.
        layout = RowLayout() if self.stateful else DecodeLayout(both[1], shortest, longest, cache.shared)
        return self.forward(both[0][:, None], both[1][:, None], cache, layout)[:, -1]


Run = Callable[[], Tensor]


class GraphedDecoder:
    """Replays graphs, one for each number of rows and of keys: valid while cache and weights keep their places.

    `capture` makes a pass one that is replayed.
    """

    def __init__(self, forward: Forward, cache: SlotCache, device: torch.device, capture: Callable[[Run], Run]) -> None:
        self.forward, self.cache, self.capture = forward, cache, capture
        self.tokens = torch.zeros(cache.slots, 1, dtype=torch.long, device=device)
        self.positions = torch.zeros_like(self.tokens)
        self.rows = torch.arange(cache.slots, device=device)
        self.graphs: dict[tuple[int, int], Run] = {}

    def __call__(self, cache: SlotCache, tokens: Sequence[int], positions: Sequence[int]) -> Tensor:
        """See `Decoder`. Raises `ValueError` for another cache than that of the graphs."""
        if cache is not self.cache:
            raise ValueError("the graphs were captured on another cache")
        count = len(tokens)
        rows = min(max(FEWEST_ROWS, 1 << (count - 1).bit_length()), cache.slots)
        keys = min((max(positions) // KEYS_A_GRAPH + 1) * KEYS_A_GRAPH, cache.capacity)
        # Rows that are too many write at the beginning of slots that nobody uses.
        both = torch.tensor([[*values, *[0] * (rows - count)] for values in (tokens, positions)])
        self.tokens[:rows, 0] = both[0].to(self.tokens.device)
        self.positions[:rows, 0] = both[1].to(self.tokens.device)
        if (rows, keys) not in self.graphs:
            self.graphs[rows, keys] = self._captured(rows, keys)
        return self.graphs[rows, keys]()[:count, -1]

    def _captured(self, rows: int, keys: int) -> Run:
        tokens, positions = self.tokens[:rows], self.positions[:rows]
        now, layout = DecodePass(self.rows[:rows], positions[:, 0], keys), DecodeLayout(positions[:, 0])

        def run() -> Tensor:
            self.cache.begin(now)
            return self.forward(tokens, positions, self.cache, layout)

        # Run again it writes the same keys at the same place.
        return self.capture(run)


def cuda_graph(run: Run) -> Run:
    """Capture a pass on the GPU; what it returns is overwritten by the next replay."""
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        run()  # kernels are chosen outside of the graph
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
