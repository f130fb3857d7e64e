"""From examples to the tensors of one forward and backward pass.

Rows are padded on the right: under causal attention no real token ever sees the padding, so no mask is needed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class Reading:
    """An example in the tokens of a teacher with another tokenizer.

    `positions` has, for each completion token of the example, the place in `tokens` where the teacher has read exactly
    the text before it; -1 where it has none.
    """

    tokens: list[int]
    positions: list[int]

    @property
    def aligned(self) -> int:
        """Completion tokens that are met."""
        return sum(position >= 0 for position in self.positions)


@dataclass(frozen=True)
class Example:
    """One sequence: tokens before `prompt_length` are context, the others are trained on.

    A rollout also has the sampler's `log_probs` of its completion tokens and its `advantage`. `prompt` is the text of
    the prompt, for teachers with another tokenizer, and `readings` what they made of the example, by name.
    """

    tokens: list[int]
    prompt_length: int
    log_probs: list[float] | None = None
    advantage: float = 0.0
    prompt: str | None = None
    readings: Mapping[str, Reading] = field(default_factory=dict)

    @property
    def targets(self) -> int:
        """Tokens that are trained on. The first token of a sequence has nothing before it to predict it from."""
        return len(self.tokens) - max(self.prompt_length, 1)


@dataclass(frozen=True)
class TokenBatch:
    """Some examples of one source as tensors, and the `examples` themselves in the order of their trained tokens.

    `tokens` `[B, T]`; for each of the N trained tokens: `positions` `[N]` into the flattened hidden states `[B*T]` that
    predict it, its `labels`, `sequence` (row), and for rollouts `log_probs` and `advantages`.
    """

    examples: list[Example]
    tokens: Tensor
    lengths: list[int]
    positions: Tensor
    labels: Tensor
    sequence: Tensor
    sequence_targets: Tensor
    log_probs: Tensor | None
    advantages: Tensor

    @staticmethod
    def of(examples: Sequence[Example], pad: int, device: torch.device) -> "TokenBatch":
        """Pad, flatten and move to `device`."""
        lengths = [len(example.tokens) for example in examples]
        width = max(lengths)
        tokens = torch.tensor([e.tokens + [pad] * (width - len(e.tokens)) for e in examples])
        starts = [max(example.prompt_length, 1) for example in examples]
        positions = torch.cat(
            [
                torch.arange(row * width + start - 1, row * width + length - 1)
                for row, (start, length) in enumerate(zip(starts, lengths, strict=True))
            ]
        )
        targets = torch.tensor([example.targets for example in examples])
        sampled = [value for example in examples if example.log_probs is not None for value in example.log_probs]
        return TokenBatch(
            examples=list(examples),
            tokens=tokens.to(device),
            lengths=lengths,
            positions=positions.to(device),
            labels=tokens.flatten()[positions + 1].to(device),
            sequence=torch.repeat_interleave(torch.arange(len(examples)), targets).to(device),
            sequence_targets=targets.to(device),
            log_probs=torch.tensor(sampled, device=device) if sampled else None,
            advantages=torch.tensor([example.advantage for example in examples], device=device),
        )


def micro_batches(examples: Sequence[Example], max_tokens: int) -> list[list[Example]]:
    """Split examples into groups of at most `max_tokens` padded tokens (or a single example), like lengths together."""
    groups: list[list[Example]] = []
    for example in sorted(examples, key=lambda e: len(e.tokens), reverse=True):
        if groups and len(groups[-1][0].tokens) * (len(groups[-1]) + 1) <= max_tokens:
            groups[-1].append(example)
        else:
            groups.append([example])
    return groups
