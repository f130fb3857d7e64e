"""The loss that an objective puts on the tokens of a source, its token weights and its normaliser.

    L = sum_c lambda_c * sum_t m[c, t] * l_c(t) / N_c

The training loop knows no loss by name. This module does not import torch, so that a recipe can be read without it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Self

from smallwit.objectives.settings import Estimator, WeightSchedule

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    from smallwit.objectives.batch import Example, TokenBatch
    from smallwit.objectives.head import TokenStatistic
    from smallwit.objectives.teacher import TeacherDistribution


@dataclass(frozen=True)
class LossTerm:
    """Base class: one term l_c of the loss, on the tokens of `source`.

    `name` is the kind of the objective. `weight` is lambda_c; with a `schedule`, that of the present step.
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
    def cross_tokenizer(self) -> bool:
        """Whether the teacher has another tokenizer than the student."""
        return False

    @property
    def estimator(self) -> Estimator | None:
        """How the source must turn rewards into advantages; `None` for a loss that needs no rewards."""
        return None

    @property
    def log_prob_columns(self) -> Mapping[str, str | None]:
        """Columns of rollouts with log-probs of the sampled tokens: for each the model's name, `None` for the student.

        They are computed on the whole batch of rollouts, before the first update, at the sampling temperature.
        """
        return {}

    @property
    def modules(self) -> Mapping[str, Module]:
        """Modules that are trained with the model, by name. Checkpoints have them, and artifacts do not."""
        return {}

    def at(self, share: float) -> Self:
        """Return this loss with its weight after `share` (0..1) of the stage's budget."""
        if self.schedule is None:
            return self
        start, end = self.schedule.from_, self.schedule.to
        done = min(share, 1.0) if self.schedule.shape == "linear" else 0.5 - 0.5 * math.cos(math.pi * min(share, 1.0))
        return replace(self, weight=start + (end - start) * done)

    def with_trainer_log_probs(self) -> Self:
        """Return this loss for rollouts of an engine whose log-probs are not the trainer's."""
        return self

    def statistic(self, batch: TokenBatch, teacher: TeacherDistribution | None) -> TokenStatistic:
        """Return the statistic of the head that `token_loss` reads."""
        raise NotImplementedError

    def token_loss(self, values: Tensor, batch: TokenBatch) -> Tensor:
        """Return l_c(t) `[N]` from the values of the statistic `[N]`."""
        raise NotImplementedError

    def state_loss(self, hidden: Tensor, batch: TokenBatch) -> Tensor | float:
        """Return a loss `[N]` on the hidden states `[N, H]` themselves. It is added to `token_loss`."""
        return 0.0

    def logged_statistics(self, batch: TokenBatch) -> Sequence[TokenStatistic]:
        """Return statistics for `metrics` alone. They come from the same pass and have no gradient."""
        return ()

    def metrics(self, values: Tensor, logged: Sequence[Tensor], batch: TokenBatch) -> Mapping[str, Tensor]:
        """Return metrics `[N]` from the values of the statistic and of the logged ones. The loop logs their means."""
        return {}

    def token_weights(self, batch: TokenBatch) -> Tensor:
        """Return m[c, t] >= 0, `[N]`: 1 for every token, unless the loss weights sequences."""
        import torch

        return torch.ones_like(batch.labels, dtype=torch.float32)

    def wants(self, example: Example) -> bool:
        """Return whether the example can have a gradient."""
        return True

    def normaliser(self, examples: Sequence[Example]) -> float:
        """Return N_c of a whole optimizer step: the number of trained tokens by default."""
        return float(sum(example.targets for example in examples))
