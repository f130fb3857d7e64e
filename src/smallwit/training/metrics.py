"""Metrics of a step: means over its tokens, and names that tell sources and losses apart."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce

import torch
from torch import Tensor

from smallwit.objectives.loss import LossTerm
from smallwit.training.distributed import World
from smallwit.training.step_batch import StepBatch


class TokenMeans:
    """Means of per-token metrics over all tokens of a step, however the step is split.

    A metric whose name ends with `_max` is the largest value instead.
    """

    def __init__(self, sums: Mapping[str, Tensor | float] | None = None, tokens: int = 0) -> None:
        self.sums: dict[str, Tensor | float] = dict(sums or {})
        self.tokens = tokens

    def add(self, numbers: Mapping[str, Tensor], tokens: int) -> None:
        """Add the metrics `[N]` of one micro-batch of so many tokens."""
        for name, values in numbers.items():
            # Summed on the device, so that the loop does not wait for it.
            total = values.detach().max().float() if _is_maximum(name) else values.detach().sum(dtype=torch.float32)
            self.sums[name] = _joined(name, self.sums[name], total) if name in self.sums else total
        self.tokens += tokens

    def plain(self) -> "TokenMeans":
        """Return the same without tensors, to be sent to other processes."""
        return TokenMeans({name: float(total) for name, total in self.sums.items()}, self.tokens)

    def __add__(self, other: "TokenMeans") -> "TokenMeans":
        sums = dict(self.sums)
        for name, total in other.sums.items():
            sums[name] = _joined(name, sums[name], total) if name in sums else total
        return TokenMeans(sums, self.tokens + other.tokens)

    def means(self) -> dict[str, float]:
        """Return the means; none if no token was trained."""
        return {n: float(total) if _is_maximum(n) else float(total) / self.tokens for n, total in self.sums.items()}


def _is_maximum(name: str) -> bool:
    return name.endswith("_max")


def _joined(name: str, one: Tensor | float, other: Tensor | float) -> Tensor | float:
    if not _is_maximum(name):
        return one + other
    return torch.maximum(torch.as_tensor(one), torch.as_tensor(other))


@dataclass
class Tally:
    """Sums over the micro-batches of a step: the value and the metrics of each loss, tokens, and FLOPs."""

    losses: list[float]
    means: list[TokenMeans]
    tokens: int = 0
    teacher_tokens: int = 0
    flops: float = 0.0

    @staticmethod
    def of(objectives: int) -> "Tally":
        """Return an empty tally of so many losses."""
        return Tally([0.0] * objectives, [TokenMeans() for _ in range(objectives)])

    def of_all(self, world: World) -> "Tally":
        """Return the sum of the tallies of all processes."""
        if world.size == 1:
            return self
        plain = replace(self, means=[each.plain() for each in self.means])
        return reduce(Tally.__add__, world.all_gather_object(plain))

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(
            [one + more for one, more in zip(self.losses, other.losses, strict=True)],
            [one + more for one, more in zip(self.means, other.means, strict=True)],
            self.tokens + other.tokens,
            self.teacher_tokens + other.teacher_tokens,
            self.flops + other.flops,
        )


def merged_sources(batches: Mapping[str, StepBatch]) -> dict[str, float]:
    """Return the metrics of the sources, as `SOURCE/METRIC` if several sources have the metric."""
    counts = Counter(key for batch in batches.values() for key in batch.metrics)
    return {
        key if counts[key] == 1 else f"{name}/{key}": value
        for name, batch in batches.items()
        for key, value in batch.metrics.items()
    }


def merged_objectives(objectives: Sequence[LossTerm], means: Sequence[TokenMeans]) -> dict[str, float]:
    """Return the metrics of the losses, as `METRIC/LABEL` if several losses have the metric."""
    found = [each.means() for each in means]
    counts = Counter(key for numbers in found for key in numbers)
    return {
        key if counts[key] == 1 else f"{key}/{label}": value
        for label, numbers in zip(labels(objectives), found, strict=True)
        for key, value in numbers.items()
    }


def labels(objectives: Sequence[LossTerm]) -> list[str]:
    """Return a label for each loss: its kind, and source and teacher if several losses have the kind."""
    counts = Counter(objective.name for objective in objectives)
    return [
        o.name if counts[o.name] == 1 else "/".join(filter(None, (o.name, o.source, o.teacher))) for o in objectives
    ]
