"""What is said of each token of a rollout before its batch is split: a reference's log-probs, a critic's advantages.

An annotator fills columns of examples by a pass without gradient over all of them.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from smallwit.models.flops import Cost
from smallwit.models.head import output_head
from smallwit.objectives.advantages import generalised_advantages, whitened
from smallwit.objectives.head import LogProb, token_statistics
from smallwit.objectives.memory import HeadMemory
from smallwit.training.batch import Example, TokenBatch, micro_batches
from smallwit.training.distributed import ALONE, World
from smallwit.training.forward import forward_hidden
from smallwit.training.objectives import Objective, PolicyObjective, PPOObjective
from smallwit.training.objectives.policy import ADVANTAGE, GRADED, OLD, RETURN, VALUE
from smallwit.training.step_batch import StepBatch


class Annotator(Protocol):
    """Adds columns to the examples of a rollout batch."""

    def annotate(self, examples: Sequence[Example], rewards: Tensor) -> StepBatch:
        """The same examples in the same order, with columns; `rewards` is `[examples]`, NaN where not known."""
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
    world: World = ALONE

    def per_token(self, examples: Sequence[Example], reduce: Callable[[Tensor, TokenBatch], Tensor]) -> list[Tensor]:
        """What `reduce` makes of hidden states `[N, H]` and their batch, `[N]`: one vector for each example."""
        rows = self.world.spread(lambda share: [row.numpy() for row in self._per_token(share, reduce)], examples)
        return [torch.from_numpy(row) for row in rows]

    @torch.no_grad()
    def _per_token(self, examples: Sequence[Example], reduce: Callable[[Tensor, TokenBatch], Tensor]) -> list[Tensor]:
        trained = [example for example in examples if example.targets > 0]
        found: dict[int, Tensor] = {}
        device_type = self.model.device.type
        for group in micro_batches(trained, self.micro_tokens):
            batch = TokenBatch.of(group, self.pad, self.model.device)
            with self.context(), torch.autocast(device_type, self.autocast, enabled=self.autocast is not None):
                values = reduce(forward_hidden(self.model, batch), batch).cpu()
            parts = values.split([example.targets for example in group])
            found.update(zip(map(id, group), parts, strict=True))
        return [found.get(id(example), torch.zeros(0)) for example in examples]

    def flops(self, examples: Sequence[Example], *, head: bool) -> float:
        """The cost of one pass over the examples, with or without the language-model head."""
        cost = Cost.of(self.model)
        return sum(cost.forward([len(e.tokens)], e.targets if head else 0) for e in examples if e.targets > 0)


@dataclass(frozen=True)
class LabelLogProbs:
    """Fills `column` with a model's log-probs of the sampled tokens at the sampling temperature."""

    forward: ForwardPass
    column: str
    temperature: float
    memory: HeadMemory = field(default_factory=HeadMemory)

    def annotate(self, examples: Sequence[Example], rewards: Tensor) -> StepBatch:
        """See `Annotator.annotate`."""

        def log_probs(hidden: Tensor, batch: TokenBatch) -> Tensor:
            head = output_head(self.forward.model)
            weight = head.weight[: self.forward.vocabulary].to(hidden.dtype)
            view = LogProb(batch.labels, self.temperature)
            return token_statistics(hidden, weight, [view], softcap=head.softcap, memory=self.memory)[0]

        rows = self.forward.per_token(examples, log_probs)
        return StepBatch(
            [_with(example, {self.column: row}) for example, row in zip(examples, rows, strict=True)],
            flops=self.forward.flops(examples, head=True),
        )


@dataclass(frozen=True)
class CriticAdvantages:
    """Fills PPO's columns: values, returns and advantages, the latter whitened over all tokens of the batch.

    The reward is paid at a completion's last token. A completion whose reward is not known is not `graded`.
    """

    forward: ForwardPass
    objective: PPOObjective

    def annotate(self, examples: Sequence[Example], rewards: Tensor) -> StepBatch:
        """See `Annotator.annotate`."""
        critic, ppo = self.objective.critic, self.objective
        assert critic is not None
        rows = self.forward.per_token(examples, lambda hidden, batch: critic(hidden))
        values = pad_sequence(rows, batch_first=True)
        lengths = torch.tensor([len(row) for row in rows])
        real = torch.arange(values.shape[1]) < lengths[:, None]
        last = torch.arange(values.shape[1]) == lengths[:, None] - 1
        known = ~rewards.isnan()
        paid = last * rewards.nan_to_num(0.0)[:, None]
        advantages = generalised_advantages(paid, values, ppo.discount, ppo.decay)
        returns = advantages + values
        graded = real & known[:, None]
        columns = {ADVANTAGE: whitened(advantages, graded), RETURN: returns, VALUE: values, GRADED: graded.float()}
        annotated = [
            _with(example, {name: column[row, : example.targets] for name, column in columns.items()})
            for row, example in enumerate(examples)
        ]
        flops = self.forward.flops(examples, head=False)
        return StepBatch(annotated, _critic_metrics(values[graded], returns[graded]), flops)


def _critic_metrics(values: Tensor, returns: Tensor) -> dict[str, float]:
    """The mean value, and the share of the returns' variance that the values explain, where there is some."""
    if not len(returns):
        return {}
    variance = float(returns.var(correction=0))
    explained = {"value_explained": 1.0 - float((returns - values).var(correction=0)) / variance} if variance else {}
    return {"value": float(values.mean())} | explained


def _with(example: Example, columns: dict[str, Tensor]) -> Example:
    return replace(example, columns={**example.columns, **{name: row.tolist() for name, row in columns.items()}})


def annotators_of(
    objectives: Sequence[Objective], student: ForwardPass, references: Mapping[str, ForwardPass]
) -> list[Annotator]:
    """What the objectives of one source need said of its rollouts; `references` are the passes of models by name."""
    policies = [objective for objective in objectives if isinstance(objective, PolicyObjective)]
    penalties = {o.reference.column: o for o in policies if o.reference is not None}
    found: list[Annotator] = [
        LabelLogProbs(references[o.reference.model], column, o.temperature)
        for column, o in penalties.items()
        if o.reference is not None
    ]
    capped = [objective for objective in policies if objective.importance_cap is not None and objective.updates > 1]
    found += [LabelLogProbs(student, OLD, objective.temperature) for objective in capped[:1]]
    return found + [CriticAdvantages(student, o) for o in policies if isinstance(o, PPOObjective)]
