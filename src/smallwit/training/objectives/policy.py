"""Objectives that reinforce the student's own completions by their advantages."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from smallwit.objectives.head import LogProb, View
from smallwit.objectives.policy_gradient import clipped_surrogate
from smallwit.objectives.teacher import TeacherDistribution
from smallwit.training.batch import Example, TokenBatch
from smallwit.training.objectives.base import Objective


@dataclass(frozen=True)
class GRPOObjective(Objective):
    """Clipped policy gradient; the mean over each sequence's tokens, then over sequences (arXiv 2402.03300, eq. 3)."""

    clip: float = 0.2
    temperature: float = 1.0

    needs_reward = True

    def view(self, batch: TokenBatch, teacher: TeacherDistribution | None) -> View:
        return LogProb(batch.labels, self.temperature)

    def token_loss(self, values: Tensor, batch: TokenBatch) -> Tensor:
        assert batch.log_probs is not None  # a recipe allows this objective on rollouts only
        return clipped_surrogate(values, batch.log_probs, batch.advantages[batch.sequence], self.clip)

    def wants(self, example: Example) -> bool:
        return example.advantage != 0.0

    def token_weights(self, batch: TokenBatch) -> Tensor:
        return 1.0 / batch.sequence_targets[batch.sequence]

    def normaliser(self, examples: Sequence[Example]) -> float:
        return float(len(examples))
