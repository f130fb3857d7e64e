"""Objectives that compare the student with a teacher."""

from dataclasses import dataclass, field

from torch import Tensor

from smallwit.objectives.divergence import Divergence, DivergenceView, ForwardKL
from smallwit.objectives.head import CHUNK_ELEMENTS, View
from smallwit.objectives.teacher import TeacherDistribution, TeacherHead
from smallwit.training.batch import TokenBatch
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
        if self.top_k is not None:
            assert isinstance(teacher, TeacherHead)  # a recipe allows top_k with a live teacher only
            teacher = teacher.top_k(self.top_k, self.temperature, chunk_elements=CHUNK_ELEMENTS)
        return DivergenceView(self.divergence, teacher, self.temperature)

    def token_loss(self, values: Tensor, batch: TokenBatch) -> Tensor:
        return values * self.temperature**2
