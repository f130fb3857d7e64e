"""The local engine: generation in this process, on the weights that are being trained; no copy, no server.

Prompts are padded on the left and prefilled once each, however many completions they get. Rows that have ended leave
the batch. Every completion draws from a random stream of its own, so it does not depend on its neighbours.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from smallwit.rollout.cache import PreallocatedCache, row_indices
from smallwit.rollout.engine import Completion, Sampling

SHRINK_BELOW = 0.75
"""Rows move to a smaller batch once the share of live ones falls below this: moving costs a pass over the cache."""


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
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, seeds: Sequence[int] | None = None
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
            draws = _uniforms([seeds[i] for i in rows], sampling.max_new_tokens) if seeds is not None else None
            done = self._generate_batch([list(prompts[i]) for i in rows], sampling, draws)
            completions.update(zip(rows, done, strict=True))
        self.model.train(training)
        return [completions[i] for i in range(len(prompts))]

    def _generate_batch(self, prompts: list[list[int]], sampling: Sampling, draws: Tensor | None) -> list[Completion]:
        device = self.model.device
        distinct = {tuple(prompt): row for row, prompt in enumerate(dict.fromkeys(map(tuple, prompts)))}
        tokens, real = _left_padded(list(distinct), self.pad, device)
        width = tokens.shape[1]
        cache = PreallocatedCache(self.model.config.num_hidden_layers, width + sampling.max_new_tokens)
        positions = (real.cumsum(1) - 1).clamp(min=0)
        logits = self._forward(tokens, _causal(real) if not real.all() else None, positions, cache)
        copies = torch.tensor([distinct[tuple(prompt)] for prompt in prompts], device=device)
        if len(distinct) != len(prompts):
            cache.select(copies)
        logits, lengths = logits[copies], real.sum(1)[copies]
        padding = width - lengths
        column = torch.arange(width + sampling.max_new_tokens, device=device)
        visible = column[None] >= padding[:, None] if bool((padding > 0).any()) else None

        count = len(prompts)
        out_tokens = torch.full((count, sampling.max_new_tokens), self.pad, device=device)
        out_log_probs = torch.zeros(count, sampling.max_new_tokens, device=device)
        out_lengths = torch.full((count,), sampling.max_new_tokens, device=device)
        ended = torch.zeros(count, dtype=torch.bool, device=device)
        stop = torch.tensor(sampling.stop, device=device)
        live = torch.arange(count, device=device)
        for step in range(sampling.max_new_tokens):
            uniform = None if draws is None else draws[live.cpu(), step]
            chosen, log_probs = _choose(logits, sampling.temperature, uniform)
            out_tokens[live, step] = chosen
            out_log_probs[live, step] = log_probs
            finished = live[torch.isin(chosen, stop) & ~ended[live]]
            out_lengths[finished] = step + 1
            ended[finished] = True
            alive = ~ended[live]
            remaining = int(alive.sum())
            if remaining == 0 or step + 1 == sampling.max_new_tokens:
                break
            if remaining < SHRINK_BELOW * len(live):
                rows = row_indices(alive)
                cache.select(rows)
                live, chosen, lengths = live[rows], chosen[rows], lengths[rows]
                visible = None if visible is None else visible[rows]
            mask = None if visible is None else visible[:, None, None, : width + step + 1]
            logits = self._forward(chosen[:, None], mask, (lengths + step)[:, None], cache)
        return [
            Completion(out_tokens[i, :n].tolist(), out_log_probs[i, :n].tolist(), truncated=not done)
            for i, (n, done) in enumerate(zip(out_lengths.tolist(), ended.tolist(), strict=True))
        ]

    def _forward(self, tokens: Tensor, mask: Tensor | None, positions: Tensor, cache: PreallocatedCache) -> Tensor:
        """Logits `[B, vocabulary]` after the last of `tokens` `[B, T]`."""
        model: torch.nn.Module = self.model.get_decoder()
        with torch.autocast(self.model.device.type, self.autocast, enabled=self.autocast is not None):
            hidden = model(
                input_ids=tokens, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
            ).last_hidden_state[:, -1]
            return hidden @ self.model.get_output_embeddings().weight[: self.vocabulary].T


def _left_padded(prompts: list[tuple[int, ...]], pad: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids and the mask of real ones, both `[B, T]`."""
    width = max(map(len, prompts))
    tokens = [[pad] * (width - len(prompt)) + list(prompt) for prompt in prompts]
    real = [[False] * (width - len(prompt)) + [True] * len(prompt) for prompt in prompts]
    return torch.tensor(tokens, device=device), torch.tensor(real, device=device)


def _causal(real: Tensor) -> Tensor:
    """Mask `[B, 1, T, T]`: a token sees itself and the real ones before it; so does padding, lest softmax be empty."""
    width = real.shape[1]
    causal = torch.ones(width, width, dtype=torch.bool, device=real.device).tril()
    itself = torch.eye(width, dtype=torch.bool, device=real.device)
    return ((causal[None] & real[:, None, :]) | itself[None])[:, None]


def _uniforms(seeds: Sequence[int], length: int) -> Tensor:
    """Uniform draws `[B, length]`: row i is a pure function of seeds[i]."""
    rows = [np.random.Generator(np.random.Philox(key=seed)).random(length) for seed in seeds]
    return torch.from_numpy(np.stack(rows))


def _choose(logits: Tensor, temperature: float, uniform: Tensor | None) -> tuple[Tensor, Tensor]:
    """The next token of each row and its log-probability: the likeliest, or by inverting the distribution function."""
    scaled = logits.float() / temperature if temperature > 0 else logits.float()
    log_probs = torch.log_softmax(scaled, dim=1)
    if uniform is None or temperature == 0:
        chosen = logits.argmax(1)
    else:
        # In float64, which Apple's GPUs lack.
        place = torch.device("cpu") if logits.device.type == "mps" else logits.device
        cumulative = log_probs.to(place).double().exp().cumsum(1)
        threshold = uniform.to(place) * cumulative[:, -1]
        chosen = torch.searchsorted(cumulative, threshold[:, None], right=True).squeeze(1)
        chosen = chosen.clamp(max=logits.shape[1] - 1).to(logits.device)
    return chosen, log_probs.gather(1, chosen[:, None]).squeeze(1)
