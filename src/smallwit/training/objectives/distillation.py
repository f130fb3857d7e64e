"""Objectives that compare the student with a teacher."""

from dataclasses import dataclass

from torch import Tensor

from smallwit.objectives.divergence import ForwardKL, ReverseKL, TeacherHead
from smallwit.objectives.head import View
from smallwit.training.batch import TokenBatch
from smallwit.training.objectives.base import Objective


@dataclass(frozen=True)
class DivergenceObjective(Objective):
    """A divergence to the teacher at every token, averaged over tokens, times temperature squared.

    The square keeps the size of the gradient as the temperature grows (Hinton et al. 2015, arXiv 1503.02531, sec. 2).
    """

    divergence: type[ForwardKL] | type[ReverseKL] = ForwardKL
    temperature: float = 1.0

    def view(self, batch: TokenBatch, teacher: TeacherHead | None) -> View:
        assert teacher is not None  # the loop supplies the teacher that `teacher` names
        return self.divergence(teacher, self.temperature)

    def token_loss(self, values: Tensor, batch: TokenBatch) -> Tensor:
        return values * self.temperature**2
