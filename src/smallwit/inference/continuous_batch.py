"""Continuous batching (Yu et al. 2022, "Orca"): a slot whose completion has ended takes the next request at once."""

import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from smallwit.errors import UserError
from smallwit.inference.decode import Decoder, Forward
from smallwit.inference.engine import Completion, FinishReason, Request, Sampling, Timings
from smallwit.inference.sampling import Chosen, NextToken, tokens_seen
from smallwit.inference.slot_cache import Piece, PrefillPass, SlotCache
from smallwit.inference.stop_strings import StopStrings
from smallwit.models.attention import RowLayout, Segment

SHARED_AT_LEAST = 32
"""Tokens that all prompts must begin with to be worth a forward pass of their own."""
REFILL = 8
"""Prompts are prefilled when one of so many slots is free: a pass for each of them alone costs more than idle slots."""
PADDED = 1.25
"""Prompts are padded if that takes at most so many times their tokens: attention over packed rows is one call a row."""

Ended = tuple[int, Completion]


@dataclass
class Row:
    """A completion that is being written, at `place` among the requests, of at most `limit` tokens.

    `sampling` is without a limit of its own, so that rows that are drawn alike share one. `cached` is the number of
    tokens whose keys are in the cache: all but the last.
    """

    place: int
    prompt: tuple[int, ...]
    sampling: Sampling
    limit: int
    cached: int
    draws: np.ndarray
    tokens: list[int] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)
    top: list[list[tuple[int, float]]] = field(default_factory=list)
    seen: Tensor | None = None

    def completion(self, reason: FinishReason, version: int) -> Completion:
        """Return what was written."""
        top = self.top if self.sampling.top_log_probs else None
        log_probs = self.log_probs if self.sampling.log_probs else []
        return Completion(self.tokens, log_probs, reason, version, top)


def rows_of(requests: Sequence[Request], context: int | None) -> list[Row]:
    """Return the rows of requests; the uniform draws of each are a pure function of its seed."""
    rows = []
    shared: dict[Sampling, Sampling] = {}
    for place, request in enumerate(requests):
        limit = request.sampling.max_new_tokens
        limit = limit if context is None else min(limit, context - len(request.prompt))
        sampling = replace(request.sampling, max_new_tokens=0)
        sampling = shared.setdefault(sampling, sampling)
        drawn = sampling.temperature > 0 and request.seed is not None
        draws = np.random.Generator(np.random.Philox(key=request.seed)).random(limit) if drawn else np.zeros(0)
        prompt = tuple(request.prompt)
        rows.append(Row(place, prompt, sampling, limit, len(prompt) - 1, draws))
    return rows


class ContinuousBatch:
    """The rows in the slots of a cache, and those that wait. Each `step` writes one token of every row.

    Prompts are prefilled, at most `prefill_tokens` at a time, each once for all of its completions; what all prompts
    begin with is prefilled once. `new_cache` makes the cache. A model with a state (`stateful`) would read
    padding and the sequence before: its prompts are prefilled in rows of one length, when all slots are empty.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        *,
        forward: Forward,
        new_cache: Callable[[], SlotCache],
        decoder: Callable[[SlotCache], Decoder],
        next_token: NextToken,
        device: torch.device,
        timings: Timings,
        version: int,
        stateful: bool,
        prefill_tokens: int,
        stop_strings: StopStrings | None,
    ) -> None:
        ordered = sorted(rows, key=lambda row: len(row.prompt)) if stateful else rows
        self.waiting = deque(ordered)
        self.live: list[Row] = []
        self.forward, self.new_cache, self.next_token, self.device = forward, new_cache, next_token, device
        self.make_decoder, self.timings, self.version = decoder, timings, version
        self.stateful, self.prefill_tokens = stateful, prefill_tokens
        self.stop_strings = stop_strings
        self.random = any(row.sampling.temperature > 0 for row in rows)
        self.penalised = any(row.sampling.repetition_penalty != 1.0 for row in rows)
        self.still_asked = Counter(row.prompt for row in rows)
        self.last_states: dict[tuple[int, ...], Tensor] = {}
        self.shared = 0 if stateful else _shared_prefix(list(self.still_asked))
        self.cache = new_cache()
        self.decoder = decoder(self.cache)

    @torch.no_grad()
    def begin(self) -> None:
        """Prefill what all prompts begin with."""
        started = time.perf_counter()
        if self.shared:
            self._pass([self.waiting[0].prompt[: self.shared]], [], 0)
        self.timings.prefill += time.perf_counter() - started

    @torch.no_grad()
    def step(self) -> tuple[list[Ended], int]:
        """Return the completions that end with this step, and the number of tokens that it writes; 0 at the end."""
        started = time.perf_counter()
        states = []
        if self.live:
            tokens = [row.tokens[-1] for row in self.live]
            states.append(self.decoder(self.cache, tokens, [row.cached for row in self.live]))
        since = time.perf_counter()
        admitted = self._admit()
        if not self.live:
            return [], 0
        if admitted and self.device.type == "cuda":
            torch.cuda.synchronize(self.device)  # each step waits for its tokens anyway
        states += admitted
        prefilled = time.perf_counter() - since
        samplings = [row.sampling for row in self.live]
        chosen = self.next_token.choose(torch.cat(states), samplings, self._draws(), self._seen())
        ended = self._write(chosen)
        wrote = len(self.live)
        completions = [(self.live[at].place, self.live[at].completion(reason, self.version)) for at, reason in ended]
        self._leave({at for at, _ in ended})
        self.timings.prefill += prefilled
        self.timings.decode += time.perf_counter() - started - prefilled
        return completions, wrote

    # ---- rows that begin

    def _admit(self) -> list[Tensor]:
        """Give free slots to rows that wait; return the hidden states `[rows, H]` of their prompts' last tokens."""
        free = self.cache.slots - len(self.live)
        worth = min(max(1, self.cache.slots // REFILL), len(self.waiting))
        if not self.waiting or (self.live and (self.stateful or free < worth)):
            return []
        rows = [self.waiting.popleft() for _ in range(min(free, len(self.waiting)))]
        if self.stateful:
            alike = [row for row in rows if len(row.prompt) == len(rows[0].prompt)]
            self.waiting.extendleft(reversed(rows[len(alike) :]))
            rows, self.cache = alike, self.new_cache()
        groups: dict[tuple[int, ...], list[Row]] = {}
        for row in rows:
            groups.setdefault(row.prompt, []).append(row)
        known = {prompt for prompt in groups if prompt in self.last_states and self._sibling(prompt) is not None}
        slot, places, copied = len(self.live), {}, []
        for prompt, group in groups.items():
            places[prompt] = slot, len(group)
            if prompt in known:
                copied.append((self._sibling(prompt), slot, len(group), len(prompt)))
            slot += len(group)
        for source, target, count, length in copied:
            assert source is not None
            self.cache.copy(source, target, count, length)
        fresh = [prompt for prompt in groups if prompt not in known]
        for prompts in self._passes(fresh):
            for prompt, state in zip(prompts, self._prefill(prompts, places), strict=True):
                self.last_states[prompt] = state
        if self.stateful:
            self.cache.order_states([number for number, group in enumerate(groups.values()) for _ in group])
        found = [self.last_states[prompt].expand(len(group), -1) for prompt, group in groups.items()]
        for prompt, group in groups.items():
            self.live += group
            self.still_asked[prompt] -= len(group)
            if not self.still_asked[prompt]:
                del self.last_states[prompt]
        return found

    def _sibling(self, prompt: tuple[int, ...]) -> int | None:
        """Return a slot that begins with the prompt."""
        return next((slot for slot, row in enumerate(self.live) if row.prompt == prompt), None)

    def _passes(self, prompts: Sequence[tuple[int, ...]]) -> list[list[tuple[int, ...]]]:
        """Return the prompts of each pass. A model with a state takes all of them at once."""
        if self.stateful:
            return [list(prompts)]
        prompts = sorted(prompts, key=len)
        passes: list[list[tuple[int, ...]]] = []
        room = 0
        for prompt in prompts:
            size = len(prompt) - self.shared
            if not passes or size > room:
                passes.append([])
                room = self.prefill_tokens
            passes[-1].append(prompt)
            room -= size
        return passes

    def _prefill(self, prompts: Sequence[tuple[int, ...]], places: dict[tuple[int, ...], tuple[int, int]]) -> Tensor:
        """Return the hidden states `[P, H]` of the last tokens of prompts, and write their keys into their slots."""
        rows = [prompt[self.shared :] for prompt in prompts]
        return self._pass(rows, [places[prompt] for prompt in prompts], self.shared)

    def _pass(self, rows: Sequence[Sequence[int]], places: Sequence[tuple[int, int]], behind: int) -> Tensor:
        """Return the hidden states `[P, H]` of the last tokens of `rows` that stand behind so many tokens."""
        sizes = [len(row) for row in rows]
        width = max(sizes)
        if self.stateful or width * len(rows) <= PADDED * sum(sizes):
            spans = [(place, 0, size) for place, size in enumerate(sizes)]
            tokens = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], device=self.device)
            positions = torch.arange(behind, behind + width, device=self.device).expand(len(rows), -1)
            layout = RowLayout()
        else:
            ends = np.cumsum(sizes).tolist()
            spans = [(0, end - size, end) for end, size in zip(ends, sizes, strict=True)]
            tokens = torch.tensor([[token for row in rows for token in row]], device=self.device)
            positions = torch.tensor([[behind + i for size in sizes for i in range(size)]], device=self.device)
            layout = RowLayout(tuple(Segment(*span) for span in spans))
        pieces = [Piece(*span, *place) for span, place in zip(spans, places, strict=True)] if places else []
        self.cache.begin(PrefillPass(tuple(pieces)))
        states = self.forward(tokens, positions, self.cache, layout)
        last = torch.tensor([(row, end - 1) for row, _, end in spans], device=self.device)
        return states[last[:, 0], last[:, 1]]

    # ---- rows that are written, and end

    def _draws(self) -> Tensor:
        """Return the uniform number `[B]` of each row's next token."""
        draws = [row.draws[len(row.tokens)] if len(row.draws) else 0.0 for row in self.live] if self.random else []
        return torch.tensor(draws, dtype=torch.float64)

    def _seen(self) -> Tensor | None:
        """Return the tokens `[B, V]` that stand in each row, if any row has a repetition penalty."""
        if not self.penalised:
            return None
        for row in self.live:
            if row.seen is None:
                row.seen = tokens_seen([row.prompt], self.next_token.vocabulary, self.device)[0]
        return torch.stack([row.seen for row in self.live if row.seen is not None])

    def _write(self, chosen: Chosen) -> list[tuple[int, FinishReason]]:
        """Append a token to each row; return the slots of those that end with it, and why."""
        tokens, log_probs, finite = _to_host(chosen)
        # What a model of NaN says is the first or last token of its vocabulary: it would be measured as a wrong answer.
        if not finite:
            raise UserError(
                "the model computes numbers that are not finite: its weights are damaged, or too large for its dtype; "
                "load it again, or in float32"
            )
        top = _pairs(chosen)
        ended: dict[int, FinishReason] = {}
        searched = []
        for slot, (row, token, log_prob) in enumerate(zip(self.live, tokens, log_probs, strict=True)):
            row.tokens.append(token)
            row.log_probs.append(log_prob)
            row.cached += 1
            if top:
                row.top.append(top[slot][: row.sampling.top_log_probs])
            if row.seen is not None:
                row.seen[token] = True
            if token in row.sampling.stop:
                ended[slot] = "stop"
                continue
            if row.sampling.stop_strings:
                searched.append(slot)
            if len(row.tokens) >= row.limit:
                ended[slot] = "length"
        ended |= dict.fromkeys(self._stopped(searched), "stop")
        return sorted(ended.items())

    def _stopped(self, slots: Sequence[int]) -> list[int]:
        """Return those of the slots whose completion holds one of its stop strings."""
        if not slots:
            return []
        assert self.stop_strings is not None
        rows = [self.live[slot] for slot in slots]
        holds = self.stop_strings.holds(
            [row.prompt for row in rows], [row.tokens for row in rows], [row.sampling.stop_strings for row in rows]
        )
        return [slot for slot, there in zip(slots, holds, strict=True) if there]

    def _leave(self, ended: set[int]) -> None:
        """Free the slots of rows that have ended: the last ones move there."""
        if not ended:
            return
        slots = list(range(len(self.live)))
        for slot in sorted(ended, reverse=True):
            last = len(slots) - 1
            if slot != last:
                self.cache.copy(slots[last], slot, 1, self.live[slots[last]].cached)
                slots[slot] = slots[last]
            slots.pop()
        self.live = [self.live[slot] for slot in slots]
        if self.stateful and slots:
            self.cache.order_states(slots)


def _to_host(chosen: Chosen) -> tuple[list[int], list[float], bool]:
    """Return tokens, log-probs and whether all is finite, in one transfer."""
    if chosen.log_probs is None:
        *tokens, finite = torch.cat([chosen.tokens, chosen.finite.long()[None]]).tolist()
        return tokens, [0.0] * len(tokens), bool(finite)
    count = len(chosen.tokens)
    parts = [chosen.tokens.double(), chosen.log_probs.double(), chosen.finite.double()[None]]
    *numbers, finite = torch.cat(parts).tolist()
    return [int(token) for token in numbers[:count]], numbers[count:], bool(finite)


def _pairs(chosen: Chosen) -> list[list[tuple[int, float]]]:
    if chosen.top is None:
        return []
    places, values = (part.tolist() for part in chosen.top)
    return [list(zip(tokens, numbers, strict=True)) for tokens, numbers in zip(places, values, strict=True)]


def _shared_prefix(prompts: Sequence[tuple[int, ...]]) -> int:
    """Return how many tokens all prompts begin with, or 0 if that would save too little. Each keeps one of its own."""
    first, last = min(prompts), max(prompts)
    most = min(map(len, prompts)) - 1
    shared = next((i for i in range(most) if first[i] != last[i]), most)
    return shared if len(prompts) > 1 and shared >= SHARED_AT_LEAST else 0
