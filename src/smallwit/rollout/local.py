"""The local engine: generation in this process, on the weights that are being trained; no copy, no server.

Prompts are padded on the left and prefilled once each, however many completions they get; what all prompts of a batch
begin with, such as demonstrations, is prefilled once for all. Rows that have ended leave the batch. Every completion
draws from a random stream of its own, so it does not depend on its neighbours.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from transformers import PreTrainedModel

from smallwit.rollout.cache import PreallocatedCache, row_indices
from smallwit.rollout.choice import choose, tokens_seen, uniforms
from smallwit.rollout.engine import Completion, Sampling, Watch

SHRINK_BELOW = 0.75
"""Rows move to a smaller batch once the share of live ones falls below this: moving costs a pass over the cache."""
SHARED_AT_LEAST = 32
"""Tokens that all prompts of a batch must begin with to be worth a forward pass of their own."""
_UNWATCHED = Watch()


class LocalEngine:
    """Generates with a Hugging Face causal language model. `vocabulary` is the tokenizer's number of real tokens:
    padded rows of the head are never sampled. `batch` bounds the sequences in flight; `autocast` is a dtype for mixed
    precision, the same as in training, or `None`."""

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        vocabulary: int,
        pad: int,
        batch: int = 256,
        autocast: torch.dtype | None = None,
    ) -> None:
        self.model = model
        self.autocast = autocast
        self.vocabulary = vocabulary
        self.pad = pad
        self.batch = batch

    @torch.no_grad()
    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        seeds: Sequence[int] | None = None,
        watch: Watch = _UNWATCHED,
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
        for start in range(0, len(order), self.batch):
            rows = order[start : start + self.batch]
            limits = [
                min(sampling.max_new_tokens, watch.limits[i]) if watch.limits else sampling.max_new_tokens for i in rows
            ]
            draws = uniforms([seeds[i] for i in rows], sampling.max_new_tokens) if seeds is not None else None

            def done(row: int, completion: Completion, rows: list[int] = rows) -> None:
                completions[rows[row]] = completion
                watch.done(rows[row], completion)

            self._generate_batch(
                [list(prompts[i]) for i in rows], sampling, draws, replace(watch, limits=limits, done=done)
            )
        self.model.train(training)
        return [completions[i] for i in range(len(prompts))]

    def _generate_batch(self, prompts: list[list[int]], sampling: Sampling, draws: Tensor | None, watch: Watch) -> None:
        device = self.model.device
        distinct = {tuple(prompt): row for row, prompt in enumerate(dict.fromkeys(map(tuple, prompts)))}
        width = max(map(len, distinct))
        written = _Written(len(prompts), sampling, watch, device)
        cache = PreallocatedCache(self.model.config.num_hidden_layers, width + written.longest)
        head = _Head(self.model, self.vocabulary, self.autocast)
        states, real = self._prefill(list(distinct), cache)
        copies = torch.tensor([distinct[tuple(prompt)] for prompt in prompts], device=device)
        if len(distinct) != len(prompts):
            cache.select(copies)
        logits, lengths = head.logits(states)[copies], real.sum(1)[copies]
        seen = None
        if sampling.repetition_penalty != 1.0:
            seen = tokens_seen(*_left_padded(list(distinct), self.pad, device), self.vocabulary)[copies]
        # Added to scores, in the dtype of these: of a mask of truth values every layer would make such numbers anew.
        hidden = None
        if not real.all():
            padding = torch.cat([~real, real.new_zeros(len(real), written.longest)], 1)[copies]
            hidden = torch.zeros(padding.shape, dtype=logits.dtype, device=device).masked_fill_(padding, -torch.inf)

        live = torch.arange(len(prompts), device=device)
        for step in range(written.longest):
            uniform = None if draws is None else draws[live.cpu(), step]
            chosen, log_probs = choose(logits, sampling, uniform, seen)
            written.add(live, step, chosen, log_probs)
            alive = ~written.closed[live]
            remaining = int(alive.sum())
            if remaining == 0:
                break
            if seen is not None:
                seen.scatter_(1, chosen[:, None], True)
            if remaining < SHRINK_BELOW * len(live):
                rows = row_indices(alive)
                cache.select(rows)
                live, chosen, lengths = live[rows], chosen[rows], lengths[rows]
                hidden = None if hidden is None else hidden[rows]
                seen = None if seen is None else seen[rows]
            mask = None if hidden is None else hidden[:, None, None, : width + step + 1]
            logits = head.logits(self._forward(chosen[:, None], mask, (lengths + step)[:, None], cache))

    def _prefill(self, prompts: list[tuple[int, ...]], cache: PreallocatedCache) -> tuple[Tensor, Tensor]:
        """Hidden states `[B, H]` after each prompt, and which columns of the cache are its tokens `[B, T]`."""
        device = self.model.device
        shared = _shared_prefix(prompts)
        if shared:
            prefix = torch.tensor([prompts[0][:shared]], device=device)
            self._forward(prefix, None, torch.arange(shared, device=device)[None], cache)
            cache.select(torch.zeros(len(prompts), dtype=torch.long, device=device))
        tokens, real = _left_padded([prompt[shared:] for prompt in prompts], self.pad, device)
        mask = _causal(real, shared) if shared or not real.all() else None
        states = self._forward(tokens, mask, shared + (real.cumsum(1) - 1).clamp(min=0), cache)
        return states, torch.cat([real.new_ones(len(prompts), shared), real], 1)

    def _forward(self, tokens: Tensor, mask: Tensor | None, positions: Tensor, cache: PreallocatedCache) -> Tensor:
        """Hidden states `[B, H]` of the last of `tokens` `[B, T]`."""
        model: torch.nn.Module = self.model.get_decoder()
        with torch.autocast(self.model.device.type, self.autocast, enabled=self.autocast is not None):
            states: Tensor = model(
                input_ids=tokens, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
            ).last_hidden_state
        return states[:, -1]


class _Head:
    """Projects onto the vocabulary's real tokens, on a CPU into memory that every step of a batch uses again: mapping
    it anew can take as long as the product."""

    def __init__(self, model: PreTrainedModel, vocabulary: int, autocast: torch.dtype | None) -> None:
        self.weight = model.get_output_embeddings().weight[:vocabulary]
        self.autocast = autocast
        self.storage: Tensor | None = None

    def logits(self, states: Tensor) -> Tensor:
        """`[B, vocabulary]` of hidden states `[B, H]`; they hold until the next call."""
        if states.device.type != "cpu" or self.autocast is not None:
            with torch.autocast(states.device.type, self.autocast, enabled=self.autocast is not None):
                return states @ self.weight.T
        if self.storage is None or len(self.storage) < len(states):
            self.storage = states.new_empty(len(states), len(self.weight))
        return torch.mm(states, self.weight.T, out=self.storage[: len(states)])


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
        for row in rows.tolist():
            tokens, log_probs = self.tokens[row, :length].tolist(), self.log_probs[row, :length].tolist()
            self.watch.done(row, Completion(tokens, log_probs, truncated))


def _left_padded(prompts: list[tuple[int, ...]], pad: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids and the mask of real ones, both `[B, T]`."""
    width = max(map(len, prompts))
    tokens = [[pad] * (width - len(prompt)) + list(prompt) for prompt in prompts]
    real = [[False] * (width - len(prompt)) + [True] * len(prompt) for prompt in prompts]
    return torch.tensor(tokens, device=device), torch.tensor(real, device=device)


def _shared_prefix(prompts: list[tuple[int, ...]]) -> int:
    """How many tokens all prompts begin with, or 0 where that would save too little. Each keeps a token of its own."""
    first, last = min(prompts), max(prompts)
    most = min(map(len, prompts)) - 1
    shared = next((i for i in range(most) if first[i] != last[i]), most)
    return shared if len(prompts) > 1 and shared >= SHARED_AT_LEAST else 0


def _causal(real: Tensor, shared: int) -> Tensor:
    """Mask `[B, 1, T, shared + T]`: a token sees the shared ones, itself and the real ones before it; so does padding,
    lest softmax be empty."""
    width = real.shape[1]
    causal = torch.ones(width, width, dtype=torch.bool, device=real.device).tril()
    itself = torch.eye(width, dtype=torch.bool, device=real.device)
    own = (causal[None] & real[:, None, :]) | itself[None]
    return torch.cat([own.new_ones(*own.shape[:2], shared), own], 2)[:, None]
