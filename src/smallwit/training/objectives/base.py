"""What an objective is: what it needs from the head, its loss on a token, its weights and its normaliser."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import torch
from torch import Tensor

from smallwit.objectives.algorithms import Estimator
from smallwit.objectives.head import LogProb, View
from smallwit.objectives.teacher import TeacherDistribution
from smallwit.recipe.objectives import WeightSchedule
from smallwit.training.batch import Example, TokenBatch


@dataclass(frozen=True)
class Objective:
    """Base class. `temperature` is the source's sampling temperature (1 for demonstrations).

    `weight` is lambda_c; where there is a `schedule`, that of the present step.
    """

    name: str
    source: str
    weight: float
    teacher: str | None = None
    schedule: WeightSchedule | None = field(default=None, kw_only=True)

    @property
    def per_token(self) -> bool:
        """Whether a token's loss depends on that token's values alone."""
        return True

    @property
    def estimator(self) -> Estimator | None:
        """How its source must turn rewards into advantages; `None` if it needs no rewards."""
        return None

    @property
    def modules(self) -> Mapping[str, torch.nn.Module]:
        """Modules beside the model that are trained with it, by name: in checkpoints, not in the artifact."""
        return {}

    def at(self, share: float) -> Self:
        """This objective with the weight that it has when `share` (0..1) of the stage's budget is spent."""
        if self.schedule is None:
            return self
        start, end = self.schedule.from_, self.schedule.to
        done = min(share, 1.0) if self.schedule.shape == "linear" else 0.5 - 0.5 * math.cos(math.pi * min(share, 1.0))
        return replace(self, weight=start + (end - start) * done)

    def view(self, batch: TokenBatch, teacher: TeacherDistribution | None) -> View:
        """The statistic `[N]` that the loss is made of."""
        raise NotImplementedError

    def token_loss(self, values: Tensor, batch: TokenBatch) -> Tensor:
        """l_c(t) for each token, `[N]`, from the view's values `[N]`."""
        raise NotImplementedError

    def state_loss(self, hidden: Tensor, batch: TokenBatch) -> Tensor | float:
        """What is added to `token_loss`, `[N]`, for a loss on the hidden states `[N, H]` themselves."""
        return 0.0

    def watched(self, batch: TokenBatch) -> Sequence[View]:
        """Statistics for `metrics` alone, which come out of the same pass and get no gradient."""
        return ()

    def metrics(self, values: Tensor, watched: Sequence[Tensor], batch: TokenBatch) -> Mapping[str, Tensor]:
        """Numbers of each token `[N]`, from the values of `view` and of `watched`; the loop takes their mean over the
        step's trained tokens."""
        return {}

    def token_weights(self, batch: TokenBatch) -> Tensor:
        """m[c, t] >= 0, `[N]`. One for every token unless an objective weighs sequences."""
        return torch.ones_like(batch.labels, dtype=torch.float32)

    def wants(self, example: Example) -> bool:
        """Whether this example can move a weight at all."""
        return True

    def normaliser(self, examples: Sequence[Example]) -> float:
        """N_c over a whole optimizer step: the number of trained tokens unless said otherwise."""
        return float(sum(example.targets for example in examples))


@dataclass(frozen=True)
class CrossEntropyObjective(Objective):
    """-log p(label), averaged over tokens."""

    def view(self, batch: TokenBatch, teacher: TeacherDistribution | None) -> View:
        return LogProb(batch.labels)

    def token_loss(self, values: Tensor, batch: TokenBatch) -> Tensor:
        return -values
