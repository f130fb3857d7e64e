"""Postprocessors of rollouts: columns for each token that are computed on the whole batch, before it is split.

They run a model over all examples without gradient: for a reference's log-probs, or for a critic's advantages.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor
from transformers import PreTrainedModel

from smallwit.models.cpu_memory import HeadMemory
from smallwit.models.flops import Cost
from smallwit.models.head import output_head
from smallwit.objectives.batch import Example, TokenBatch
from smallwit.objectives.head import LogProb, token_statistics
from smallwit.objectives.loss import LossTerm
from smallwit.training.distributed import SINGLE_PROCESS, World
from smallwit.training.forward import forward_hidden, token_batches
from smallwit.training.step_batch import StepBatch


class RolloutPostprocessor(Protocol):
    """Adds columns to the examples of a batch of rollouts."""

    def process(self, examples: Sequence[Example], rewards: Tensor) -> StepBatch:
        """Return the same examples in the same order, with columns. `rewards` is `[examples]`, NaN where not known."""
        ...


@runtime_checkable
class CriticLoss(Protocol):
    """A loss whose advantages come from a critic on the student's hidden states."""

    def values(self, hidden: Tensor, batch: TokenBatch) -> Tensor:
        """Return the critic's values `[N]` of the hidden states `[N, H]`."""
        ...

    def columns(self, values: Sequence[Tensor], rewards: Tensor) -> tuple[dict[str, Tensor], dict[str, float]]:
        """Return the columns `[B, T]` of B rollouts, and metrics, from the values of their tokens and rewards `[B]`."""
        ...


@dataclass(frozen=True)
class ForwardPass:
    """Passes of a model over examples without gradient, `micro_tokens` padded tokens at a time.

    `vocabulary` is the tokenizer's number of real tokens; `context` surrounds each pass. The processes of `world` share
    the work.
    """

    model: PreTrainedModel
    pad: int
    vocabulary: int
    micro_tokens: int
    autocast: torch.dtype | None = None
    context: Callable[[], AbstractContextManager[object]] = nullcontext
    world: World = SINGLE_PROCESS

    def per_token(self, examples: Sequence[Example], reduce: Callable[[Tensor, TokenBatch], Tensor]) -> list[Tensor]:
        """Return the values `[N]` of `reduce(hidden [N, H], batch)`, one vector for each example."""
        rows = self.world.sharded_map(lambda share: [row.numpy() for row in self._per_token(share, reduce)], examples)
        return [torch.from_numpy(row) for row in rows]

    @torch.no_grad()
    def _per_token(self, examples: Sequence[Example], reduce: Callable[[Tensor, TokenBatch], Tensor]) -> list[Tensor]:
        trained = [example for example in examples if example.targets > 0]
        found: dict[int, Tensor] = {}
        device_type = self.model.device.type
        for batch in token_batches([self.model], trained, pad=self.pad, max_tokens=self.micro_tokens):
            with self.context(), torch.autocast(device_type, self.autocast, enabled=self.autocast is not None):
                values = reduce(forward_hidden(self.model, batch), batch).cpu()
            parts = values.split([example.targets for example in batch.examples])
            found.update(zip(map(id, batch.examples), parts, strict=True))
        return [found.get(id(example), torch.zeros(0)) for example in examples]

    def flops(self, examples: Sequence[Example], *, head: bool) -> float:
        """Return the FLOPs of one pass over the examples, with or without the language-model head."""
        cost = Cost.of(self.model)
        return sum(cost.forward([len(e.tokens)], e.targets if head else 0) for e in examples if e.targets > 0)


@dataclass(frozen=True)
class LabelLogProbs:
    """Adds the column `column`: a model's log-probs of the sampled tokens at the sampling temperature."""

    forward: ForwardPass
    column: str
    temperature: float
    memory: HeadMemory = field(default_factory=HeadMemory)

    def process(self, examples: Sequence[Example], rewards: Tensor) -> StepBatch:
        """Return the examples with the column `column`."""

        def log_probs(hidden: Tensor, batch: TokenBatch) -> Tensor:
            head = output_head(self.forward.model)
            weight = head.weight[: self.forward.vocabulary].to(hidden.dtype)
            statistic = LogProb(batch.labels, self.temperature)
            return token_statistics(hidden, weight, [statistic], softcap=head.softcap, memory=self.memory)[0]

        rows = self.forward.per_token(examples, log_probs)
        return StepBatch(
            [_with(example, {self.column: row}) for example, row in zip(examples, rows, strict=True)],
            flops=self.forward.flops(examples, head=True),
        )


@dataclass(frozen=True)
class LaterUpdates:
    """Asks `inner` for the examples of all `updates` that share a batch but the first."""

    inner: RolloutPostprocessor
    updates: int

    def process(self, examples: Sequence[Example], rewards: Tensor) -> StepBatch:
        """Return all examples, the later updates' with the columns of `inner`."""
        places = [place for place in range(len(examples)) if place % self.updates]
        added = self.inner.process([examples[place] for place in places], rewards[places])
        found = dict(zip(places, added.examples, strict=True))
        return replace(added, examples=[found.get(place, example) for place, example in enumerate(examples)])


@dataclass(frozen=True)
class CriticAdvantages:
    """Adds the columns of a loss with a critic: values, returns and advantages."""

    forward: ForwardPass
    loss: CriticLoss

    def process(self, examples: Sequence[Example], rewards: Tensor) -> StepBatch:
        """Return the examples with the critic's columns."""
        values = self.forward.per_token(examples, self.loss.values)
        columns, metrics = self.loss.columns(values, rewards)
        rows = [
            _with(example, {name: column[row, : example.targets] for name, column in columns.items()})
            for row, example in enumerate(examples)
        ]
        return StepBatch(rows, metrics, self.forward.flops(examples, head=False))


def _with(example: Example, columns: dict[str, Tensor]) -> Example:
    return replace(example, columns={**example.columns, **{name: row.tolist() for name, row in columns.items()}})


def postprocessors_of(
    losses: Sequence[LossTerm],
    student: ForwardPass,
    references: Mapping[str, ForwardPass],
    temperature: float,
    updates: int,
) -> list[RolloutPostprocessor]:
    """Return the postprocessors of rollouts that are sampled at `temperature`, for the losses on them.

    `references` are the passes of reference models, by name; `updates` optimizer steps share a batch. The student's own
    log-probs are those before the first of them, which computes them itself.
    """
    columns = {column: model for loss in losses for column, model in loss.log_prob_columns.items()}
    found: list[RolloutPostprocessor] = [
        LaterUpdates(LabelLogProbs(student, column, temperature), updates)
        if model is None
        else LabelLogProbs(references[model], column, temperature)
        for column, model in columns.items()
    ]
    return found + [CriticAdvantages(student, loss) for loss in losses if isinstance(loss, CriticLoss)]
