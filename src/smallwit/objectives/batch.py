"""Examples, and the tensors of one forward and backward pass over them.

A row holds one example, or several packed ones. Rows are padded on the right: under causal attention no real token sees
the padding. The layout of packed rows keeps their examples apart. A prompt that several examples of a row share stands
there once, and the completions behind it ("Prefix Grouper", arXiv 2506.05433): the losses and gradients are the same.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate

import torch
from torch import Tensor

from smallwit.models.attention import RowLayout, Segment
from smallwit.models.conversation import Conversation

PASS_TOKENS = 512
"""Padding tokens that cost as much as another pass through the model."""
CALL_FLOPS = 1.5e7
"""FLOPs that take as long as what a completion behind a shared prompt costs more: in each layer attention is a call for
it, forward and backward."""


@dataclass(frozen=True)
class AlignedTokens:
    """An example in the tokens of a teacher with another tokenizer.

    `positions` has an entry for each completion token of the example: the position in `tokens` where the teacher has
    read exactly the same text before it, or -1.
    """

    tokens: list[int]
    positions: list[int]

    @property
    def count(self) -> int:
        """Number of completion tokens that are aligned."""
        return sum(position >= 0 for position in self.positions)


@dataclass(frozen=True)
class Example:
    """One sequence: tokens before `prompt_length` are context, the others are trained.

    `trained` names other spans `[start, end)` of trained tokens, in order: every assistant turn of a conversation.

    A rollout also has the sampler's `log_probs` of its completion tokens, its `advantage`, and `columns`: numbers for
    each trained token, by name. `prompt` is the prompt, a text or turns, for teachers with another tokenizer, and
    `aligned` has the example in their tokens, by the teacher's name.
    """

    tokens: list[int]
    prompt_length: int
    log_probs: list[float] | None = None
    advantage: float = 0.0
    columns: Mapping[str, list[float]] = field(default_factory=dict)
    prompt: str | Conversation | None = None
    aligned: Mapping[str, AlignedTokens] = field(default_factory=dict)
    trained: tuple[tuple[int, int], ...] | None = None

    @property
    def spans(self) -> tuple[tuple[int, int], ...]:
        """Spans `[start, end)` of trained tokens. The first token of a sequence is never trained."""
        spans = ((self.prompt_length, len(self.tokens)),) if self.trained is None else self.trained
        return tuple((max(start, 1), end) for start, end in spans)

    @property
    def targets(self) -> int:
        """Number of trained tokens."""
        return sum(end - start for start, end in self.spans)

    @property
    def shareable_prompt(self) -> tuple[int, ...]:
        """The tokens of the prompt; none if some of them are trained, or nothing stands behind them."""
        first = min((start for start, _ in self.spans), default=0)
        whole = self.prompt_length > first or self.prompt_length >= len(self.tokens)
        return () if whole else tuple(self.tokens[: self.prompt_length])


@dataclass(frozen=True)
class TokenBatch:
    """Some examples of one source as tensors, and the `examples` themselves in the order of their trained tokens.

    `tokens` `[B, T]`, the first `row_lengths` of each row, and padding; for each of the N trained tokens: `positions`
    `[N]` into the flattened hidden states `[B*T]` that predict it, its `labels`, `sequence` (its example), and for
    rollouts `log_probs`, `advantages` `[B]` and `columns` `[N]`. Packed rows also have `position_ids` `[B, T]`, which
    start again at every example, and a `layout` that tells their examples apart.
    """

    examples: list[Example]
    tokens: Tensor
    lengths: list[int]
    row_lengths: list[int]
    positions: Tensor
    labels: Tensor
    sequence: Tensor
    sequence_targets: Tensor
    log_probs: Tensor | None
    advantages: Tensor
    columns: Mapping[str, Tensor]
    position_ids: Tensor | None = None
    layout: RowLayout = field(default_factory=RowLayout)

    @staticmethod
    def of(
        examples: Sequence[Example],
        pad: int,
        device: torch.device,
        pack: int | None = None,
        share_prompts: bool = False,
    ) -> "TokenBatch":
        """Put the examples into rows on `device`: one row each, of `pack` tokens (see `packed_rows`), or all into one
        row in which each prompt stands once (`share_prompts`)."""
        rows = _rows(examples, pack, share_prompts)
        width = max(len(row.tokens) for row in rows)
        tokens = torch.tensor([row.tokens + [pad] * (width - len(row.tokens)) for row in rows])
        position_ids = torch.tensor([row.position_ids + [0] * (width - len(row.tokens)) for row in rows])
        segments = tuple(
            Segment(number, *span, behind) for number, row in enumerate(rows) for span, behind in row.segments
        )
        places = {i: number * width + place for number, row in enumerate(rows) for i, place in row.places.items()}
        trained = [(i, first, end) for i, example in enumerate(examples) for first, end in example.spans]
        positions = torch.cat([places[i][first - 1 : end - 1] for i, first, end in trained])
        targets = torch.tensor([example.targets for example in examples])
        sequence = torch.repeat_interleave(torch.arange(len(examples)), targets, output_size=len(positions))
        sampled = [value for example in examples if example.log_probs is not None for value in example.log_probs]
        apart = share_prompts or len(rows) < len(examples)
        return TokenBatch(
            examples=list(examples),
            tokens=tokens.to(device),
            lengths=[len(example.tokens) for example in examples],
            row_lengths=[len(row.tokens) for row in rows],
            positions=positions.to(device),
            labels=tokens.flatten()[torch.cat([places[i][first:end] for i, first, end in trained])].to(device),
            sequence=sequence.to(device),
            sequence_targets=targets.to(device),
            log_probs=torch.tensor(sampled, device=device) if sampled else None,
            advantages=torch.tensor([example.advantage for example in examples], device=device),
            columns={
                name: torch.tensor([value for example in examples for value in example.columns[name]], device=device)
                for name in examples[0].columns
            },
            position_ids=position_ids.to(device) if apart else None,
            layout=RowLayout(segments=segments) if apart else RowLayout(),
        )

    def part(self, tokens: slice) -> "TokenBatch":
        """Return the batch with only these of its N trained tokens."""
        return replace(
            self,
            positions=self.positions[tokens],
            labels=self.labels[tokens],
            sequence=self.sequence[tokens],
            log_probs=None if self.log_probs is None else self.log_probs[tokens],
            columns={name: column[tokens] for name, column in self.columns.items()},
        )


@dataclass
class _Row:
    """A row that is being filled. `places` has, for each token of an example, where it stands in the row."""

    tokens: list[int] = field(default_factory=list)
    position_ids: list[int] = field(default_factory=list)
    segments: list[tuple[tuple[int, int], tuple[int, int] | None]] = field(default_factory=list)
    places: dict[int, Tensor] = field(default_factory=dict)

    def add(self, tokens: Sequence[int], behind: tuple[int, int] | None = None) -> tuple[int, int]:
        """Append a sequence, or what follows the span `behind`; return its span `[start, stop)`."""
        first = 0 if behind is None else behind[1] - behind[0]
        span = len(self.tokens), len(self.tokens) + len(tokens)
        self.tokens += tokens
        self.position_ids += range(first, first + len(tokens))
        self.segments.append((span, behind))
        return span


def _rows(examples: Sequence[Example], pack: int | None, share_prompts: bool) -> list[_Row]:
    if share_prompts:
        return [_row_of_shared_prompts(examples)]
    packed = packed_rows([len(e.tokens) for e in examples], pack) if pack else [[i] for i in range(len(examples))]
    rows = []
    for numbers in packed:
        rows.append(row := _Row())
        row.places = {i: torch.arange(*row.add(examples[i].tokens)) for i in numbers}
    return rows


def _row_of_shared_prompts(examples: Sequence[Example]) -> _Row:
    row = _Row()
    spans: dict[tuple[int, ...], tuple[int, int]] = {}
    wanted = Counter(example.shareable_prompt for example in examples)
    for i, example in enumerate(examples):
        prompt = example.shareable_prompt
        if not prompt or wanted[prompt] == 1:
            row.places[i] = torch.arange(*row.add(example.tokens))
            continue
        if prompt not in spans:
            spans[prompt] = row.add(prompt)
        own = row.add(example.tokens[len(prompt) :], behind=spans[prompt])
        row.places[i] = torch.cat([torch.arange(*spans[prompt]), torch.arange(*own)])
    return row


def packed_rows(lengths: Sequence[int], width: int) -> list[list[int]]:
    """Return the examples of each row: best-fit packing into rows of `width` tokens, the longest first.

    An example longer than `width` has a row of its own.
    """
    rows: list[list[int]] = []
    room: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        fitting = [row for row in range(len(rows)) if room[row] >= lengths[i]]
        if fitting:
            row = min(fitting, key=lambda row: room[row])
        else:
            row = len(rows)
            rows.append([])
            room.append(width)
        rows[row].append(i)
        room[row] -= lengths[i]
    return rows


def rectangles(lengths: Sequence[int]) -> list[slice]:
    """Return slices of rows that go through a model together, padded to their longest: cut if that saves `PASS_TOKENS`.

    The order of rows is kept; it helps if the longest are first.
    """
    count = len(lengths)
    # The longest of each row and those behind it.
    longest = list(accumulate(reversed(lengths), max))[::-1]
    saved = [(longest[0] - longest[i]) * (count - i) for i in range(count)]
    cut = max(range(count), key=saved.__getitem__)
    if saved[cut] < PASS_TOKENS:
        return [slice(0, count)]
    behind = [slice(cut + part.start, cut + part.stop) for part in rectangles(lengths[cut:])]
    return rectangles(lengths[:cut]) + behind


def prompts_worth_sharing(examples: Iterable[Example], gain: float) -> bool:
    """Return whether sharing prompts saves time, if a token that is not computed saves `gain` FLOPs in each layer."""
    saved = calls = 0
    for prompt, count in Counter(example.shareable_prompt for example in examples).items():
        saved += (count - 1) * len(prompt)
        calls += count
    return saved * gain > calls * CALL_FLOPS


def micro_batches(
    examples: Sequence[Example], max_tokens: int, pack: int | None = None, share_prompts: bool = False
) -> list[list[Example]]:
    """Split examples into groups of at most `max_tokens` padded tokens (or a single row), of similar lengths.

    With `pack`, a group is made of whole packed rows. With `share_prompts`, examples of a prompt are in one group as
    far as they fit, and the prompt counts once.
    """
    if share_prompts:
        return list(_by_prompt(examples, max_tokens))
    if pack:
        rows = packed_rows([len(example.tokens) for example in examples], pack)
        size = max(1, max_tokens // pack)
        return [[examples[i] for row in rows[start : start + size] for i in row] for start in range(0, len(rows), size)]
    groups: list[list[Example]] = []
    for example in sorted(examples, key=lambda e: len(e.tokens), reverse=True):
        if groups and len(groups[-1][0].tokens) * (len(groups[-1]) + 1) <= max_tokens:
            groups[-1].append(example)
        else:
            groups.append([example])
    return groups


def _by_prompt(examples: Sequence[Example], max_tokens: int) -> Iterator[list[Example]]:
    siblings: dict[tuple[int, ...], list[Example]] = {}
    for example in examples:
        siblings.setdefault(example.shareable_prompt, []).append(example)
    group: list[Example] = []
    room = max_tokens
    for prompt, alike in siblings.items():
        known = False
        for example in alike:
            size = len(example.tokens) - known * len(prompt)
            if group and size > room:
                yield group
                group, room, size = [], max_tokens, len(example.tokens)
            group.append(example)
            room, known = room - size, True
    if group:
        yield group
