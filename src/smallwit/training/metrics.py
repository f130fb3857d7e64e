"""Numbers for the log: means over the tokens of a step, and names that tell apart what several parts report."""

from collections import Counter
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from smallwit.training.objectives import Objective
from smallwit.training.step_batch import StepBatch


class TokenMeans:
    """Means of numbers of each token over all tokens of a step, however it is split."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.tokens = 0

    def add(self, numbers: Mapping[str, Tensor], tokens: int) -> None:
        """Take in the numbers `[N]` of one micro-batch of so many tokens."""
        for name, values in numbers.items():
            # Summed on the device: the loop need not wait for it in mid-step.
            total = values.detach().sum(dtype=torch.float32)
            self.sums[name] = self.sums[name] + total if name in self.sums else total
        self.tokens += tokens

    def means(self) -> dict[str, float]:
        """The means; none where no token was trained on."""
        return {name: float(total) / self.tokens for name, total in self.sums.items()}


def merged_sources(batches: Mapping[str, StepBatch]) -> dict[str, float]:
    """The sources' metrics under their own names where only one has them, else with the source's name in front."""
    counts = Counter(key for batch in batches.values() for key in batch.metrics)
    return {
        key if counts[key] == 1 else f"{name}/{key}": value
        for name, batch in batches.items()
        for key, value in batch.metrics.items()
    }


def merged_objectives(objectives: Sequence[Objective], means: Sequence[TokenMeans]) -> dict[str, float]:
    """The objectives' metrics under their own names where only one has them, else followed by the objective's label."""
    found = [each.means() for each in means]
    counts = Counter(key for numbers in found for key in numbers)
    return {
        key if counts[key] == 1 else f"{key}/{label}": value
        for label, numbers in zip(labels(objectives), found, strict=True)
        for key, value in numbers.items()
    }


def labels(objectives: Sequence[Objective]) -> list[str]:
    """KIND, followed by what tells objectives of one kind apart: the source and the teacher."""
    counts = Counter(objective.name for objective in objectives)
    return [
        o.name if counts[o.name] == 1 else "/".join(filter(None, (o.name, o.source, o.teacher))) for o in objectives
    ]
