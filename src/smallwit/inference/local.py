"""The local engine: generation in this process, on the weights that are being trained; no copy, no server.

Prompts are padded on the right and prefilled once each, however many completions they get; what all prompts of a batch
begin with, such as demonstrations, is prefilled once for all. Completions are written behind the padding, which no
query sees. Rows that have ended leave the batch. Every completion draws from a random stream of its own, so it does not
depend on its neighbours.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby

import torch
from torch import Tensor
from transformers import PreTrainedModel

from smallwit.errors import UserError
from smallwit.inference.cache import RolloutCache, row_indices
from smallwit.inference.decode import Decoder, EagerDecoder, GraphedDecoder, can_be_graphed, cuda_graph
from smallwit.inference.engine import UNWATCHED, Completion, Sampling, Timings, Watch
from smallwit.inference.sampling import choose, tokens_seen, uniforms
from smallwit.models.attention import RowLayout, StaticLayout, require_attention, row_layout
from smallwit.models.build import is_stateful
from smallwit.models.head import output_head

SHARED_AT_LEAST = 32
"""Tokens that all prompts of a batch must begin with to be worth a forward pass of their own."""
_ONE_A_ROW = RowLayout()


class LocalEngine:
    """Generates with a Hugging Face causal language model. `vocabulary` is the tokenizer's number of real tokens:
    padded rows of the head are never sampled. `batch` bounds the sequences in flight; `autocast` is a dtype for mixed
    precision, the same as in training, or `None`. `timings` adds up over calls."""

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        vocabulary: int,
        pad: int,
        batch: int = 256,
        autocast: torch.dtype | None = None,
    ) -> None:
        require_attention(model)
        self.model = model
        self.autocast = autocast
        self.vocabulary = vocabulary
        self.pad = pad
        self.batch = batch
        self.stateful = is_stateful(model)
        self.graphed = can_be_graphed(model)
        self.timings = Timings()

    @torch.no_grad()
    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        seeds: Sequence[int] | None = None,
        watch: Watch = UNWATCHED,
    ) -> list[Completion]:
        """See `Engine.generate`. Raises `ValueError` for an empty prompt, or sampling without seeds."""
        if any(not prompt for prompt in prompts):
            raise ValueError("an empty prompt cannot be completed")
        if sampling.temperature > 0 and (seeds is None or len(seeds) != len(prompts)):
            raise ValueError(f"sampling needs one seed for each of the {len(prompts)} prompts")
        # Prompts of like length share a batch, so that little is padded.
        order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
        completions: dict[int, Completion] = {}
        training = self.model.training
        self.model.eval()
        for rows in self._batches(order, prompts):
            limits = [
                min(sampling.max_new_tokens, watch.limits[i]) if watch.limits else sampling.max_new_tokens for i in rows
            ]
            draws = uniforms([seeds[i] for i in rows], sampling.max_new_tokens) if seeds is not None else None

            def done(row: int, completion: Completion, rows: list[int] = rows) -> None:
                completions[rows[row]] = completion
                watch.done(rows[row], completion)

            # Autocast forgets the weights that it has cast where the outermost block ends: here, not at every token.
            with torch.autocast(self.model.device.type, enabled=False):
                self._generate_batch(
                    [list(prompts[i]) for i in rows], sampling, draws, replace(watch, limits=limits, done=done)
                )
        self.model.train(training)
        return [completions[i] for i in range(len(prompts))]

    def _batches(self, order: Sequence[int], prompts: Sequence[Sequence[int]]) -> Iterator[list[int]]:
        """Yield the prompts of each batch; a model with a state needs prompts of one length, lest it read padding."""
        alike = (lambda i: len(prompts[i])) if self.stateful else (lambda i: 0)
        for _, group in groupby(order, alike):
            rows = list(group)
            yield from (rows[start : start + self.batch] for start in range(0, len(rows), self.batch))

    def _generate_batch(self, prompts: list[list[int]], sampling: Sampling, draws: Tensor | None, watch: Watch) -> None:
        device = self.model.device
        distinct = {tuple(prompt): row for row, prompt in enumerate(dict.fromkeys(map(tuple, prompts)))}
        width = max(map(len, distinct))
        written = _Written(len(prompts), sampling, watch, device)
        cache = RolloutCache(self.model.config, width + written.longest, zeroed=self.graphed)
        head = _Head(self.model, self.vocabulary)
        started = time.perf_counter()
        states = self._prefill(list(distinct), cache)
        if device.type == "cuda":
            torch.cuda.synchronize(device)  # once a batch; each decoded step waits for its tokens anyway
        since = time.perf_counter()
        self.timings.prefill += since - started
        copies = torch.tensor([distinct[tuple(prompt)] for prompt in prompts], device=device)
        if len(distinct) != len(prompts):
            cache.select(copies)
        logits = head.logits(states)[copies]
        seen = None
        if sampling.repetition_penalty != 1.0:
            seen = tokens_seen(*_right_padded(list(distinct), self.pad, device), self.vocabulary)[copies]
        lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
        padding = width - min(map(len, distinct))
        positions = _key_positions(lengths, width, written.longest) if padding or self.graphed else None
        decoder = self._decoder(cache, positions, padding)

        live = torch.arange(len(prompts), device=device)
        remaining = len(prompts)
        for step in range(written.longest):
            uniform = None if draws is None else draws[live.cpu(), step]
            chosen, log_probs = choose(logits, sampling, uniform, seen)
            written.check(states, logits.gather(1, chosen[:, None]))
            written.add(live, step, chosen, log_probs)
            alive = ~written.closed[live]
            wrote, remaining = remaining, int(alive.sum())
            self.timings.decode += time.perf_counter() - since
            watch.on_tokens(wrote)
            since = time.perf_counter()
            if remaining == 0:
                break
            if seen is not None:
                seen.scatter_(1, chosen[:, None], True)
            if remaining < decoder.shrink_below * len(live):
                rows = row_indices(alive)
                cache.select(rows)
                live, chosen, lengths, decoder = live[rows], chosen[rows], lengths[rows], decoder.select(rows)
                seen = None if seen is None else seen[rows]
            states = decoder(chosen, lengths + step)
            logits = head.logits(states)

    def _decoder(self, cache: RolloutCache, key_positions: Tensor | None, padding: int) -> Decoder:
        """Return what decodes rows whose keys are at these positions `[B, capacity]`, with so much padding at most."""
        if self.graphed:
            assert key_positions is not None
            return GraphedDecoder(self._forward, cache, key_positions, cuda_graph)
        return EagerDecoder(self._forward, cache, RowLayout(key_positions=key_positions, padding=padding))

    def _prefill(self, prompts: list[tuple[int, ...]], cache: RolloutCache) -> Tensor:
        """Return the hidden states `[B, H]` of each prompt's last token."""
        device = self.model.device
        shared = 0 if self.stateful else _shared_prefix(prompts)
        if shared:
            prefix = torch.tensor([prompts[0][:shared]], device=device)
            self._forward(prefix, torch.arange(shared, device=device)[None], cache)
            cache.select(torch.zeros(len(prompts), dtype=torch.long, device=device))
        tokens, _ = _right_padded([prompt[shared:] for prompt in prompts], self.pad, device)
        positions = torch.arange(shared, shared + tokens.shape[1], device=device).expand(len(prompts), -1)
        states = self._forward(tokens, positions, cache)
        last = torch.tensor([len(prompt) - shared - 1 for prompt in prompts], device=device)
        return states[torch.arange(len(prompts), device=device), last]

    def _forward(
        self, tokens: Tensor, positions: Tensor, cache: RolloutCache, layout: RowLayout | StaticLayout = _ONE_A_ROW
    ) -> Tensor:
        """Return the hidden states `[B, T, H]` of `tokens` `[B, T]`."""
        model: torch.nn.Module = self.model.get_decoder()
        autocast = torch.autocast(self.model.device.type, self.autocast, enabled=self.autocast is not None)
        with autocast, row_layout(layout):
            states: Tensor = model(
                input_ids=tokens, position_ids=positions, past_key_values=cache, use_cache=True
            ).last_hidden_state
        return states


class _Head:
    """Projects onto the vocabulary's real tokens, on a CPU into memory that every step of a batch uses again: mapping
    it anew can take as long as the product. Not under autocast, as in training."""

    def __init__(self, model: PreTrainedModel, vocabulary: int) -> None:
        self.head, self.vocabulary = output_head(model), vocabulary
        self.storage: Tensor | None = None

    def logits(self, states: Tensor) -> Tensor:
        """Return `[B, vocabulary]` of hidden states `[B, H]`; they hold until the next call."""
        if states.device.type != "cpu":
            return self.head.logits(states, self.vocabulary)
        if self.storage is None or len(self.storage) < len(states):
            self.storage = states.new_empty(len(states), self.vocabulary)
        return self.head.logits(states, self.vocabulary, out=self.storage[: len(states)])


class _Written:
    """The tokens of a batch so far. `closed` `[B]` are the rows that have ended; they may stay in the batch a while."""

    def __init__(self, count: int, sampling: Sampling, watch: Watch, device: torch.device) -> None:
        self.watch = watch
        self.limits = torch.tensor(watch.limits, device=device)
        self.longest = int(self.limits.max())
        self.stop = torch.tensor(sampling.stop, device=device)
        self.tokens = torch.zeros(count, self.longest, dtype=torch.long, device=device)
        self.log_probs = torch.zeros(count, self.longest if sampling.log_probs else 0, device=device)
        self.closed = torch.zeros(count, dtype=torch.bool, device=device)
        self.finite = torch.ones((), dtype=torch.bool, device=device)

    def check(self, states: Tensor, chosen: Tensor) -> None:
        """Remember whether last hidden states, and logits of chosen tokens, are finite; asked when a row ends."""
        self.finite &= states.isfinite().all() & chosen.isfinite().all()

    def add(self, live: Tensor, step: int, chosen: Tensor, log_probs: Tensor | None) -> None:
        """Write token number `step` of the rows `live`, and close those that end with it."""
        self.tokens[live, step] = chosen
        if log_probs is not None:
            self.log_probs[live, step] = log_probs
        open_ = ~self.closed[live]
        stopped = torch.isin(chosen, self.stop) & open_
        self._close(live[stopped], step + 1, truncated=False)
        if self.watch.halt is not None:
            rows = live[open_ & ~stopped]
            tails = self.tokens[rows, max(0, step + 1 - self.watch.window) : step + 1].tolist()
            halted = torch.tensor(self.watch.halt(tails), dtype=torch.bool, device=rows.device)
            self._close(rows[halted], step + 1, truncated=False)
        full = live[~self.closed[live] & (self.limits[live] <= step + 1)]
        self._close(full, step + 1, truncated=True)

    def _close(self, rows: Tensor, length: int, *, truncated: bool) -> None:
        self.closed[rows] = True
        # What a model of NaN says is the first or last token of its vocabulary: it would be measured as a wrong answer.
        if len(rows) and not self.finite:
            raise UserError(
                "the model computes numbers that are not finite: its weights are damaged, or too large for its dtype; "
                "load it again, or in float32"
            )
        for row in rows.tolist():
            tokens, log_probs = self.tokens[row, :length].tolist(), self.log_probs[row, :length].tolist()
            self.watch.done(row, Completion(tokens, log_probs, truncated))


def _right_padded(prompts: list[tuple[int, ...]], pad: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return token ids and the mask of real ones, both `[B, T]`."""
    width = max(map(len, prompts))
    tokens = [list(prompt) + [pad] * (width - len(prompt)) for prompt in prompts]
    real = [[True] * len(prompt) + [False] * (width - len(prompt)) for prompt in prompts]
    return torch.tensor(tokens, device=device), torch.tensor(real, device=device)


def _key_positions(lengths: Tensor, width: int, written: int) -> Tensor:
    """Return the positions `[B, width + written]` of keys: of prompts of `lengths` `[B]`, padding (-1), completions."""
    columns = torch.arange(width, device=lengths.device).expand(len(lengths), -1)
    prompts = columns.masked_fill(columns >= lengths[:, None], -1)
    return torch.cat([prompts, lengths[:, None] + torch.arange(written, device=lengths.device)], 1)


def _shared_prefix(prompts: list[tuple[int, ...]]) -> int:
    """How many tokens all prompts begin with, or 0 where that would save too little. Each keeps a token of its own."""
    first, last = min(prompts), max(prompts)
    most = min(map(len, prompts)) - 1
    shared = next((i for i in range(most) if first[i] != last[i]), most)
    return shared if len(prompts) > 1 and shared >= SHARED_AT_LEAST else 0
