"""Objectives that compare the student with a teacher."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from smallwit.objectives.divergence import Divergence, DivergenceView, ForwardKL, TotalVariation
from smallwit.objectives.head import CHUNK_ELEMENTS, View
from smallwit.objectives.teacher import TeacherDistribution, TeacherHead
from smallwit.training.batch import Example, Reading, TokenBatch
from smallwit.training.objectives.base import Objective


@dataclass(frozen=True)
class DivergenceObjective(Objective):
    """A divergence to the teacher at every token, averaged over tokens, times temperature squared.

    The square keeps the size of the gradient as the temperature grows (Hinton et al. 2015, arXiv 1503.02531, sec. 2).
    With `top_k` the two are compared on a live teacher's k likeliest tokens and one bucket for the others.
    """

    divergence: Divergence = field(default_factory=ForwardKL)
    temperature: float = 1.0
    top_k: int | None = None

    def view(self, batch: TokenBatch, teacher: TeacherDistribution | None) -> View:
        assert teacher is not None  # the loop supplies the teacher that `teacher` names
        # A teacher behind an endpoint gives its top k and nothing else; a recipe has no top_k with a stored one.
        if self.top_k is not None and isinstance(teacher, TeacherHead):
            teacher = teacher.top_k(self.top_k, self.temperature, chunk_elements=CHUNK_ELEMENTS)
        return DivergenceView(self.divergence, teacher, self.temperature)

    def token_loss(self, values: Tensor, batch: TokenBatch) -> Tensor:
        return values * self.temperature**2


@dataclass(frozen=True)
class UniversalObjective(DivergenceObjective):
    """The distance of the sorted probabilities to those of a teacher with another tokenizer, where the two meet.

    sum_i |p_(i) - q_(i)|, p_(i) the i-th largest (universal logit distillation, Boizard et al. 2024, arXiv 2402.12030),
    which is twice the total variation of the two as `RankedTeacher` matches them. The mean is over the tokens
    that are met.
    """

    divergence: Divergence = field(default_factory=TotalVariation)

    @property
    def per_token(self) -> bool:
        """The weights of tokens are known by example."""
        return False

    def token_loss(self, values: Tensor, batch: TokenBatch) -> Tensor:
        return 2 * values

    def token_weights(self, batch: TokenBatch) -> Tensor:
        met = [position >= 0 for example in batch.examples for position in self._reading(example).positions]
        return torch.tensor(met, dtype=torch.float32, device=batch.labels.device)

    def wants(self, example: Example) -> bool:
        return self._reading(example).aligned > 0

    def normaliser(self, examples: Sequence[Example]) -> float:
        # A step in which nothing is met has loss 0, and not 0 / 0.
        return float(max(sum(self._reading(example).aligned for example in examples), 1))

    def _reading(self, example: Example) -> Reading:
        assert self.teacher is not None  # a recipe gives one
        return example.readings[self.teacher]
