"""Cross-entropy: the loss of pretraining and of supervised fine-tuning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from smallwit.objectives.loss import LossTerm
from smallwit.objectives.settings import Objective, SourceProtocol

if TYPE_CHECKING:
    from torch import Tensor

    from smallwit.objectives.batch import TokenBatch
    from smallwit.objectives.head import TokenStatistic
    from smallwit.objectives.teacher import TeacherDistribution


class CrossEntropy(Objective):
    """Cross-entropy -log p(label), averaged over tokens."""

    kind: Literal["cross_entropy"]

    def check_source(self, source: SourceProtocol) -> None:
        if source.kind == "rollouts":
            raise ValueError("cross_entropy on the student's own rollouts teaches nothing; use demonstrations")

    def build(self, source: SourceProtocol, hidden_size: int) -> CrossEntropyLoss:
        return CrossEntropyLoss(**self.loss_arguments())


@dataclass(frozen=True)
class CrossEntropyLoss(LossTerm):
    """The loss of `CrossEntropy`."""

    def statistic(self, batch: TokenBatch, teacher: TeacherDistribution | None) -> TokenStatistic:
        from smallwit.objectives.head import LogProb

        return LogProb(batch.labels)

    def token_loss(self, values: Tensor, batch: TokenBatch) -> Tensor:
        return -values
