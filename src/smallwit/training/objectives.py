"""The objectives of a stage: what each needs from the head, its loss on a token, its weights and its normaliser.

    L = sum_c lambda_c * sum_t m[c, t] * l_c(t) / N_c

The loop below these classes knows none of them by name.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from smallwit import recipe
from smallwit.objectives.divergence import ForwardKL, ReverseKL, TeacherHead
from smallwit.objectives.head import LogProb, View
from smallwit.objectives.policy_gradient import clipped_surrogate
from smallwit.training.batch import Example, TokenBatch


@dataclass(frozen=True)
class Objective:
    """Base class. `temperature` is the source's sampling temperature (1 for demonstrations)."""

    name: str
    source: str
    weight: float
    teacher: str | None = None

    needs_reward = False

    def view(self, batch: TokenBatch, teacher: TeacherHead | None) -> View:
        """The statistic `[N]` that the loss is made of."""
        raise NotImplementedError

    def token_loss(self, values: Tensor, batch: TokenBatch) -> Tensor:
        """l_c(t) for each token, `[N]`, from the view's values `[N]`."""
        raise NotImplementedError

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

    def view(self, batch: TokenBatch, teacher: TeacherHead | None) -> View:
        return LogProb(batch.labels)

    def token_loss(self, values: Tensor, batch: TokenBatch) -> Tensor:
        return -values


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


@dataclass(frozen=True)
class GRPOObjective(Objective):
    """Clipped policy gradient; the mean over each sequence's tokens, then over sequences (arXiv 2402.03300, eq. 3)."""

    clip: float = 0.2
    temperature: float = 1.0

    needs_reward = True

    def view(self, batch: TokenBatch, teacher: TeacherHead | None) -> View:
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


def bind(spec: recipe.ObjectiveSpec, source: recipe.Source) -> Objective:
    """The objective that an entry of a recipe describes, on its source."""
    name, where, weight = spec.kind, spec.source, spec.weight
    if isinstance(spec, recipe.CrossEntropy):
        return CrossEntropyObjective(name, where, weight)
    if isinstance(spec, recipe.GRPO):
        assert isinstance(source, recipe.Rollouts)  # checked when the recipe was read
        return GRPOObjective(name, where, weight, clip=spec.clip, temperature=source.temperature)
    divergence = ForwardKL if isinstance(spec, recipe.ForwardKL) else ReverseKL
    return DivergenceObjective(name, where, weight, spec.teacher, divergence, spec.temperature)
