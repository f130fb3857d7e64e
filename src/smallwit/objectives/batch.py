"""Examples, and the tensors of one forward and backward pass over them.

A row holds one example, or several packed ones. Rows are padded on the right: under causal attention no real token sees
the padding. The layout of packed rows keeps their examples apart.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate

import torch
from torch import Tensor

from smallwit.models.attention import RowLayout
from smallwit.models.conversation import Conversation

PASS_TOKENS = 512
"""Padding tokens that cost as much as another pass through the model."""


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
    def of(examples: Sequence[Example], pad: int, device: torch.device, pack: int | None = None) -> "TokenBatch":
        """Put the examples into rows, of `pack` tokens (see `packed_rows`) or one row each, on `device`."""
        rows = packed_rows([len(e.tokens) for e in examples], pack) if pack else [[i] for i in range(len(examples))]
        row_lengths = [sum(len(examples[i].tokens) for i in row) for row in rows]
        width = max(row_lengths)
        tokens = torch.full((len(rows), width), pad)
        segments: list[tuple[int, int, int]] = []
        position_ids = torch.zeros(len(rows), width, dtype=torch.long)
        starts = [0] * len(examples)
        for number, row in enumerate(rows):
            place = 0
            for i in row:
                length = len(examples[i].tokens)
                here = slice(place, place + length)
                tokens[number, here] = torch.tensor(examples[i].tokens)
                segments.append((number, place, place + length))
                position_ids[number, here] = torch.arange(length)
                starts[i] = number * width + place
                place += length
        positions = torch.cat(
            [
                torch.arange(start + first - 1, start + end - 1)
                for start, example in zip(starts, examples, strict=True)
                for first, end in example.spans
            ]
        )
        targets = torch.tensor([example.targets for example in examples])
        sampled = [value for example in examples if example.log_probs is not None for value in example.log_probs]
        sequence = torch.repeat_interleave(torch.arange(len(examples)), targets, output_size=len(positions))
        apart = len(rows) < len(examples)
        return TokenBatch(
            examples=list(examples),
            tokens=tokens.to(device),
            lengths=[len(example.tokens) for example in examples],
            row_lengths=row_lengths,
            positions=positions.to(device),
            labels=tokens.flatten()[positions + 1].to(device),
            sequence=sequence.to(device),
            sequence_targets=targets.to(device),
            log_probs=torch.tensor(sampled, device=device) if sampled else None,
            advantages=torch.tensor([example.advantage for example in examples], device=device),
            columns={
                name: torch.tensor([value for example in examples for value in example.columns[name]], device=device)
                for name in examples[0].columns
            },
            position_ids=position_ids.to(device) if apart else None,
            layout=RowLayout(segments=tuple(segments)) if apart else RowLayout(),
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


def micro_batches(examples: Sequence[Example], max_tokens: int, pack: int | None = None) -> list[list[Example]]:
    """Split examples into groups of at most `max_tokens` padded tokens (or a single row), of similar lengths.

    With `pack`, a group is made of whole packed rows.
    """
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
