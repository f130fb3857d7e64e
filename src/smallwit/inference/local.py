"""The local engine: generation in this process, on the weights that are being trained; no server.

In float32 it reads the training weights themselves. Under mixed precision it has a copy in that number format, which
every call refreshes in place. Every completion draws from a random stream of its own, so it does not depend
on its neighbours, but for rounding.
"""

import copy
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from smallwit.device import available_memory
from smallwit.errors import UserError
from smallwit.inference.continuous_batch import ContinuousBatch, Ended, Row, rows_of
from smallwit.inference.decode import Decoder, EagerDecoder, GraphedDecoder, can_be_graphed, cuda_graph
from smallwit.inference.engine import Completion, EngineBusy, Request, Timings, check_request
from smallwit.inference.sampling import NextToken
from smallwit.inference.slot_cache import SlotCache, bytes_per_token
from smallwit.inference.stop_strings import StopStrings
from smallwit.models.attention import DecodeLayout, RowLayout, require_attention, row_layout
from smallwit.models.build import is_stateful
from smallwit.models.cpu_products import fast_linears, linears_of
from smallwit.models.head import output_head

PREFILL_BYTES = {"cpu": 1 << 27, "cuda": 1 << 31}
"""Bytes of a layer's activations in one pass over prompts, about: it bounds the memory of a prefill."""
MEMORY_SHARE = 0.5
"""The most of the free memory that cache and logits may take."""
_CAPACITY_STEP = 256
"""The capacity of a cache that is kept is a multiple of it."""

Steps = Generator[tuple[list[Ended], int], None, None]
"""What each decoding step has ended, and how many tokens it wrote."""


class LocalEngine:
    """An `Engine` on a Hugging Face causal language model.

    `vocabulary` is the tokenizer's number of real tokens: padded rows of the head are never sampled. At most `batch`
    completions are written at a time, fewer if memory has no room for their cache. `autocast` is the number format of
    mixed precision, or `None` for that of the weights. `stop_strings` finds them in tokens.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        vocabulary: int,
        batch: int = 256,
        autocast: torch.dtype | None = None,
        stop_strings: StopStrings | None = None,
    ) -> None:
        require_attention(model)
        self.model, self.vocabulary, self.batch = model, vocabulary, batch
        self.stop_strings = stop_strings
        self.context: int | None = getattr(model.config, "max_position_embeddings", None)
        self.dtype = autocast if autocast is not None and model.dtype == torch.float32 else None
        self.stateful, self.graphed = is_stateful(model), can_be_graphed(model)
        self.timings, self.version = Timings(), 0
        self._copy: PreTrainedModel | None = None
        self._kept: tuple[SlotCache, GraphedDecoder] | None = None
        self._running: Steps | None = None

    # ---- the protocol

    def generate(
        self, requests: Sequence[Request], on_tokens: Callable[[int], None] = lambda count: None
    ) -> Iterator[tuple[int, Completion]]:
        """See `Engine.generate`. Raises `UserError` if memory has no room for a single completion."""
        self._refuse_if_busy()
        for request in requests:
            check_request(request, self.context, stop_strings=self.stop_strings is not None)
        return self._completions(rows_of(requests, self.context), on_tokens)

    def stream(self, request: Request) -> Generator[int, None, None]:
        """See `StreamingEngine.stream`. Raises as `generate` does."""
        check_request(request, self.context, stop_strings=self.stop_strings is not None)
        (row,) = rows_of([request], self.context)
        with closing(self._steps([row])) as steps:
            for _ in steps:
                yield row.tokens[-1]

    def update(self, version: int, named_tensors: Iterable[tuple[str, Tensor]] = ()) -> None:
        """See `Engine.update`. The weights are the training weights, or a copy that `generate` refreshes."""
        self._refuse_if_busy()
        self.version = version

    def sleep(self) -> None:
        """See `Engine.sleep`: gives back the cache, its graphs, and a copy of the weights."""
        self._refuse_if_busy()
        self._kept, self._copy = None, None

    def wake(self) -> None:
        """See `Engine.wake`: memory is taken by the next call of `generate`."""

    def close(self) -> None:
        """See `Engine.close`."""
        if self._running is not None:
            self._running.close()
            self._running = None
        self.sleep()

    def _refuse_if_busy(self) -> None:
        if self._running is not None:
            raise EngineBusy

    # ---- generation

    def _completions(self, rows: list[Row], on_tokens: Callable[[int], None]) -> Iterator[tuple[int, Completion]]:
        with closing(self._steps(rows)) as steps:
            for ended, wrote in steps:
                yield from ended
                on_tokens(wrote)

    def _steps(self, rows: list[Row]) -> Steps:
        if not rows:
            return
        self._refuse_if_busy()
        running, training = self._decoding(rows), self.model.training
        try:  # from here on: Ctrl-C may come at any line
            self._running = running
            self.model.eval()
            yield from running
        except Exception:
            self._kept = None  # whatever failed, the cache may hold what is not finite
            raise
        finally:
            self._running = None
            self.model.train(training)

    def _decoding(self, rows: list[Row]) -> Steps:
        batch = self._batch(self._weights(), rows)
        batch.begin()
        while (step := batch.step())[1]:
            yield step

    def _batch(self, model: PreTrainedModel, rows: list[Row]) -> ContinuousBatch:
        device = model.device
        capacity = max(len(row.prompt) + row.limit for row in rows)
        linears = linears_of(model)

        def forward(tokens: Tensor, positions: Tensor, cache: SlotCache, layout: RowLayout | DecodeLayout) -> Tensor:
            decoder: torch.nn.Module = model.get_decoder()
            with row_layout(layout), fast_linears(linears):
                states: Tensor = decoder(
                    input_ids=tokens, position_ids=positions, past_key_values=cache, use_cache=True
                ).last_hidden_state
            return states

        def new_decoder(cache: SlotCache) -> Decoder:
            if not self.graphed:
                return EagerDecoder(forward, device, stateful=self.stateful)
            if self._kept is None or self._kept[0] is not cache:
                self._kept = cache, GraphedDecoder(forward, cache, device, cuda_graph)
            return self._kept[1]

        slots = self.batch if self.graphed else min(self.batch, len(rows))
        return ContinuousBatch(
            rows,
            forward=forward,
            new_cache=lambda: self._cache(model, slots, capacity),
            decoder=new_decoder,
            next_token=NextToken(output_head(model), self.vocabulary),
            device=device,
            timings=self.timings,
            version=self.version,
            stateful=self.stateful,
            prefill_tokens=_prefill_tokens(model),
            stop_strings=self.stop_strings,
        )

    def _cache(self, model: PreTrainedModel, slots: int, capacity: int) -> SlotCache:
        """Return a cache of as many slots as memory has room for, or the one that is kept with its graphs."""
        if self._kept is not None:
            cache = self._kept[0]
            if cache.capacity >= capacity:
                cache.drop_prefix()
                return cache
            self._kept = None
        if self.graphed:
            capacity = -(-capacity // _CAPACITY_STEP) * _CAPACITY_STEP
        each = slot_bytes(model.config, model.dtype.itemsize, capacity, self.vocabulary)
        room = int(MEMORY_SHARE * available_memory(str(model.device)) / each)
        if room < 1:
            raise UserError(
                f"a completion with its prompt, {capacity} tokens, needs {each / 1e9:.1f} GB of cache, which memory "
                "has no room for; ask for fewer new tokens, or free memory"
            )
        return SlotCache(model.config, min(slots, room), capacity)

    # ---- weights

    @torch.no_grad()
    def _weights(self) -> PreTrainedModel:
        """Return the model to read: with a copy, one that has the training weights as they are now."""
        if self.dtype is None:
            return self.model
        if self._copy is None:
            # Parameters are copied in their new format one by one: never two whole copies at a time.
            halves = {id(p): torch.nn.Parameter(p.detach().to(self.dtype), False) for p in self.model.parameters()}
            self._copy = copy.deepcopy(self.model, halves).eval()
            return self._copy
        # Whether they have changed cannot be asked: torch's version counters miss fused optimizers and `.data`.
        for mine, trained in zip(self._copy.parameters(), self.model.parameters(), strict=True):
            mine.copy_(trained)
        return self._copy


def slot_bytes(config: Any, item: int, capacity: int, vocabulary: int) -> int:
    """Return the bytes that a completion needs: `capacity` keys and values, `item` bytes a number, and its logits."""
    # Logits, their exponentials, and what truncation makes of them.
    return capacity * bytes_per_token(config, item) + 4 * 4 * vocabulary


def prefill_bytes(model: PreTrainedModel, tokens: int) -> int:
    """Return the bytes of a layer's activations in the passes over prompts of so many tokens in all, about."""
    return min(tokens, _prefill_tokens(model)) * _prefill_width(model) * model.dtype.itemsize


def _prefill_tokens(model: PreTrainedModel) -> int:
    """Return the tokens of prompts that one pass takes at most."""
    size = PREFILL_BYTES.get(model.device.type, PREFILL_BYTES["cpu"])
    return max(256, min(8192, size // (_prefill_width(model) * model.dtype.itemsize)))


def _prefill_width(model: PreTrainedModel) -> int:
    """Return the numbers of a token that a layer holds at a time, about."""
    config = model.config.get_text_config()
    wide = getattr(config, "intermediate_size", None)
    return int(8 * config.hidden_size + 3 * (wide if isinstance(wide, int) else 4 * config.hidden_size))
