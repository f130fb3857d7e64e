"""What all objectives with a teacher share: their settings, and the loss on the distance of two distributions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

from pydantic import Field, PositiveFloat, PositiveInt

from smallwit.objectives.loss import LossTerm
from smallwit.objectives.settings import Objective, SourceProtocol

if TYPE_CHECKING:
    from torch import Tensor

    from smallwit.objectives.batch import TokenBatch
    from smallwit.objectives.head import TokenStatistic
    from smallwit.objectives.teacher import Distributions, TeacherDistribution


class Distillation(Objective):
    """A divergence D(p, q) between the next-token distributions of the student p and a teacher q, in nats."""

    cross_tokenizer: ClassVar[bool] = False
    """Whether the teacher has another tokenizer than the student. It must be a model with weights then, no store."""

    teacher: str = Field(
        description="a model of the recipe, an earlier train stage, or a teacher_logprobs stage's store"
    )
    temperature: PositiveFloat = Field(default=1.0, description="temperature of both distributions")
    top_k: PositiveInt | None = Field(
        default=None, description="compare on the teacher's likeliest tokens and one bucket for all others"
    )

    @classmethod
    def make(cls, **settings: Any) -> Self:
        """Return a divergence from Python, without a recipe: `JensenShannon.make(beta=0.1)`."""
        return super().make(**{"teacher": ""} | settings)

    @property
    def teachers(self) -> Sequence[str]:
        return (self.teacher,)

    def evaluate(self, pair: Distributions, p: Tensor) -> tuple[Tensor, Tensor]:
        """Return D `[n]` and its slopes `[n, K]`; see `Divergence.evaluate`."""
        raise NotImplementedError

    def build(self, source: SourceProtocol, hidden_size: int) -> DistillationLoss:
        return DistillationLoss(
            **self.loss_arguments(),
            teacher=self.teacher,
            divergence=self,
            temperature=self.temperature,
            top_k=self.top_k,
        )


class Divergence(Protocol):
    """A divergence D(p, q) of the student p and the teacher q, in nats: a sum over tokens, D = sum_v f(p_v, q_v)."""

    def evaluate(self, pair: Distributions, p: Tensor) -> tuple[Tensor, Tensor]:
        """Return D `[n]` and the slopes s = p df/dp `[n, K]`, up to a multiple of `p` that is the same for all K.

        `p` is exp(log p). The method may overwrite `log_q`, but not `p` and `log_p`.
        """
        ...


@dataclass(frozen=True)
class DistillationLoss(LossTerm):
    """A divergence to the teacher at every token, averaged over tokens, times temperature squared.

    The square keeps the size of the gradient as the temperature grows (Hinton et al. 2015, arXiv 1503.02531, sec. 2).
    With `top_k` the two are compared on a live teacher's k likeliest tokens and one bucket for the others.
    """

    _: KW_ONLY
    divergence: Divergence
    temperature: float = 1.0
    top_k: int | None = None

    def statistic(self, batch: TokenBatch, teacher: TeacherDistribution | None) -> TokenStatistic:
        from smallwit.objectives.divergence import DivergenceStatistic
        from smallwit.objectives.head import CHUNK_ELEMENTS
        from smallwit.objectives.teacher import TeacherHead

        assert teacher is not None  # the loop supplies the teacher that `teacher` names
        # A teacher behind an endpoint gives its top k and nothing else; a recipe has no top_k with a stored one.
        if self.top_k is not None and isinstance(teacher, TeacherHead):
            teacher = teacher.top_k(self.top_k, self.temperature, chunk_elements=CHUNK_ELEMENTS)
        return DivergenceStatistic(self.divergence, teacher, self.temperature)

    def token_loss(self, values: Tensor, batch: TokenBatch) -> Tensor:
        return values * self.temperature**2
