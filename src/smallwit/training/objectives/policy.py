"""Objectives that reinforce the student's own completions by their advantages: one class for the whole table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from smallwit.objectives import policy_gradient
from smallwit.objectives.algorithms import ALGORITHMS, Algorithm, Estimator
from smallwit.objectives.head import Entropy, LogProb, View
from smallwit.objectives.kl_estimates import KLEstimate, kl_estimate
from smallwit.objectives.teacher import TeacherDistribution
from smallwit.training.batch import Example, TokenBatch
from smallwit.training.objectives.base import Objective

OLD = "log_probs of the old policy"
"""The column of the trainer's own log-probs at the time of the rollouts."""


@dataclass(frozen=True)
class ReferencePenalty:
    """`weight` times the estimated KL(policy || `model`); the model's log-probs are the column `column`."""

    model: str
    weight: float
    estimate: KLEstimate = "k2"

    @property
    def column(self) -> str:
        """The name of the column of an example that an annotator fills."""
        return f"log_probs of {self.model}"


@dataclass(frozen=True)
class PolicyObjective(Objective):
    """A row of the table of algorithms, with its clip and an optional penalty on the distance to a reference.

    The penalty is averaged over tokens as the loss is. `longest` is the most tokens that a completion may have,
    `updates` the optimizer steps that share a batch of rollouts.

    The sampler's log-probs are the old policy's, unless `importance_cap` is given: then the old policy's are the
    trainer's own, and each token's loss is weighted by their truncated ratio to the sampler's (Yao et al. 2025, "Your
    Efficient RL Framework Secretly Brings You Off-Policy RL Training").
    """

    algorithm: Algorithm = ALGORITHMS["grpo"]
    low: float = 0.2
    high: float = 0.2
    temperature: float = 1.0
    longest: int = 0
    reference: ReferencePenalty | None = None
    importance_cap: float | None = None
    updates: int = 1

    @property
    def estimator(self) -> Estimator | None:
        return self.algorithm.estimator

    @property
    def per_token(self) -> bool:
        """Whether a token's loss depends on that token's values alone."""
        return self.algorithm.ratio == "token"

    def view(self, batch: TokenBatch, teacher: TeacherDistribution | None) -> View:
        return LogProb(batch.labels, self.temperature)

    def watched(self, batch: TokenBatch) -> Sequence[View]:
        return (Entropy(self.temperature),)

    def advantages(self, batch: TokenBatch) -> Tensor:
        """The advantage of each token, `[N]`."""
        return batch.advantages[batch.sequence]

    def token_loss(self, values: Tensor, batch: TokenBatch) -> Tensor:
        ratio = self._ratio(values, batch)
        rule, advantages = self.algorithm.clip, self.advantages(batch)
        loss = policy_gradient.policy_loss(rule, values, ratio, advantages, self.low, self.high)
        if self.importance_cap is not None:
            old, sampler = self._trainers(values, batch), _samplers(batch)
            loss = loss * policy_gradient.truncated_importance(old, sampler, self.importance_cap)
        if self.reference is not None:
            theirs = batch.columns[self.reference.column]
            penalty = policy_gradient.kl_penalty(values, theirs, self.reference.estimate)
            loss = loss + self.reference.weight * penalty
        return loss

    def metrics(self, values: Tensor, watched: Sequence[Tensor], batch: TokenBatch) -> Mapping[str, Tensor]:
        ratio, advantages = self._ratio(values, batch), self.advantages(batch)
        below, above = policy_gradient.clipped_shares(self.algorithm.clip, ratio, advantages, self.low, self.high)
        numbers = {"entropy": watched[0], "ratio": ratio, "clip_low": below.float(), "clip_high": above.float()}
        if self.updates == 1 or OLD in batch.columns:
            numbers["sampler_gap"] = (self._trainers(values, batch) - _samplers(batch)).abs()
        if self.reference is not None:
            theirs = batch.columns[self.reference.column]
            numbers["kl"] = kl_estimate(values, theirs, self.reference.estimate)
        return numbers

    def wants(self, example: Example) -> bool:
        return example.advantage != 0.0 or self.reference is not None

    def token_weights(self, batch: TokenBatch) -> Tensor:
        return policy_gradient.token_weights(batch.sequence, batch.sequence_targets, self.algorithm.aggregation)

    def normaliser(self, examples: Sequence[Example]) -> float:
        tokens = sum(example.targets for example in examples)
        return policy_gradient.normaliser(tokens, len(examples), self.longest, self.algorithm.aggregation)

    def _ratio(self, values: Tensor, batch: TokenBatch) -> Tensor:
        old = _samplers(batch) if self.importance_cap is None else self._trainers(values, batch)
        level = self.algorithm.ratio
        return policy_gradient.importance_ratio(values, old, batch.sequence, batch.sequence_targets, level)

    def _trainers(self, values: Tensor, batch: TokenBatch) -> Tensor:
        """The log-probs `[N]` that this process gave the tokens when they were sampled: the present ones, if no
        update has come between."""
        return values.detach() if self.updates == 1 else batch.columns[OLD]


def _samplers(batch: TokenBatch) -> Tensor:
    assert batch.log_probs is not None  # a recipe allows these objectives on rollouts only
    return batch.log_probs


class Critic(torch.nn.Module):
    """A linear value head on the policy's hidden states. It starts at 0, so that it needs no random numbers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(width))
        self.bias = torch.nn.Parameter(torch.zeros(()))

    def forward(self, hidden: Tensor) -> Tensor:
        """Values `[N]` in float32 of the hidden states `[N, H]` that predict each token."""
        # Not a matrix product: autocast would take that in half precision.
        return (hidden.float() * self.weight).sum(1) + self.bias


ADVANTAGE, RETURN, VALUE, GRADED = "advantage", "return", "value", "graded"
"""The columns that a critic's annotator fills: per token; `graded` is 0 where the reward is not known, else 1."""


@dataclass(frozen=True)
class PPOObjective(PolicyObjective):
    """PPO: advantages of each token by a critic, which is trained on the same hidden states.

    The critic's clipped loss counts `value_weight` times, in its own weights and in the model's. `discount` and
    `decay` are GAE's gamma and lambda.
    """

    critic: Critic | None = None
    value_clip: float = 0.2
    value_weight: float = 0.1
    discount: float = 1.0
    decay: float = 0.95

    @property
    def modules(self) -> Mapping[str, torch.nn.Module]:
        assert self.critic is not None
        return {f"critic of {self.source}": self.critic}

    def advantages(self, batch: TokenBatch) -> Tensor:
        return batch.columns[ADVANTAGE]

    def state_loss(self, hidden: Tensor, batch: TokenBatch) -> Tensor | float:
        assert self.critic is not None
        values, columns = self.critic(hidden), batch.columns
        loss = policy_gradient.clipped_value_loss(values, columns[VALUE], columns[RETURN], self.value_clip)
        return self.value_weight * loss * columns[GRADED]

    def wants(self, example: Example) -> bool:
        return example.columns[GRADED][0] > 0 or self.reference is not None
