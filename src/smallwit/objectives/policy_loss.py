"""The loss of policy-gradient algorithms: the sampled tokens are reinforced by their advantages."""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import Self

from torch import Tensor

from smallwit.objectives import policy_gradient
from smallwit.objectives.batch import Example, TokenBatch
from smallwit.objectives.head import Entropy, LogProb, TokenStatistic
from smallwit.objectives.kl_estimates import kl_estimate
from smallwit.objectives.loss import LossTerm
from smallwit.objectives.policy import PolicyGradient
from smallwit.objectives.settings import Estimator
from smallwit.objectives.teacher import TeacherDistribution

OLD = "log_probs of the old policy"
"""The column of the trainer's own log-probs before the first of several updates. The first update has no such column:
it begins with these very weights, so the log-probs of its own pass are the old ones."""

AHEAD_CAP = 2.0
"""The importance cap of rollouts that are sampled ahead. It was the first default of TRL's
`vllm_importance_sampling_cap`."""

SAMPLER_GAP_BOUND = 0.05
"""The mean |log p - log q| above which engine and trainer differ by more than number formats explain. A factor of 1.05
in a token's probability is what NeMo RL's own tests allow (`token_mult_prob_error`)."""


@dataclass(frozen=True)
class PolicyGradientLoss(LossTerm):
    """The loss of an `algorithm`, with an optional penalty on the distance to a reference model.

    The penalty is averaged over tokens as the loss is. A completion has at most `max_new_tokens` tokens; `updates`
    optimizer steps share a batch of rollouts.

    The old policy's log-probs are the sampler's, unless the `sampler_differs` from the trainer: then they are the
    trainer's own. With an `importance_cap` they are that too, and each token's loss is weighted by their truncated
    ratio to the sampler's (Yao et al. 2025, "Your Efficient RL Framework Secretly Brings You Off-Policy RL Training").
    """

    _: KW_ONLY
    algorithm: PolicyGradient
    temperature: float = 1.0
    max_new_tokens: int = 0
    updates: int = 1
    ahead: int = 0
    sampler_differs: bool = False

    @property
    def importance_cap(self) -> float | None:
        """Return the cap of the truncated importance weights; `None` for no weights."""
        cap = self.algorithm.importance_cap
        return AHEAD_CAP if cap is None and self.ahead else cap

    @property
    def old_from_trainer(self) -> bool:
        """Whether the old log-probs are the trainer's own."""
        return self.sampler_differs or self.importance_cap is not None

    def with_trainer_log_probs(self) -> Self:
        return replace(self, sampler_differs=True)

    @property
    def estimator(self) -> Estimator | None:
        return self.algorithm.estimator

    @property
    def per_token(self) -> bool:
        return self.algorithm.ratio == "token"

    @property
    def log_prob_columns(self) -> Mapping[str, str | None]:
        reference = self.algorithm.reference
        columns: dict[str, str | None] = {} if reference is None else {reference.column: reference.model}
        if self.old_from_trainer and self.updates > 1:
            columns[OLD] = None
        return columns

    def statistic(self, batch: TokenBatch, teacher: TeacherDistribution | None) -> TokenStatistic:
        return LogProb(batch.labels, self.temperature)

    def logged_statistics(self, batch: TokenBatch) -> Sequence[TokenStatistic]:
        return (Entropy(self.temperature),)

    def advantages(self, batch: TokenBatch) -> Tensor:
        """Return the advantage of each token `[N]`."""
        return batch.advantages[batch.sequence]

    def token_loss(self, values: Tensor, batch: TokenBatch) -> Tensor:
        ratio = self._ratio(values, batch)
        algorithm, advantages = self.algorithm, self.advantages(batch)
        loss = policy_gradient.policy_loss(algorithm.clip_rule, values, ratio, advantages, *algorithm.clip_range)
        if self.importance_cap is not None:
            old, sampler = _trainer_log_probs(values, batch), _sampler_log_probs(batch)
            loss = loss * policy_gradient.truncated_importance(old, sampler, self.importance_cap)
        if algorithm.reference is not None:
            reference = batch.columns[algorithm.reference.column]
            penalty = policy_gradient.kl_penalty(values, reference, algorithm.reference.estimate)
            loss = loss + algorithm.reference.weight * penalty
        return loss

    def metrics(self, values: Tensor, logged: Sequence[Tensor], batch: TokenBatch) -> Mapping[str, Tensor]:
        ratio, advantages, algorithm = self._ratio(values, batch), self.advantages(batch), self.algorithm
        rule, clip_range = algorithm.clip_rule, algorithm.clip_range
        below, above = policy_gradient.clipped_shares(rule, ratio, advantages, *clip_range)
        numbers = {"entropy": logged[0], "ratio": ratio, "clip_low": below.float(), "clip_high": above.float()}
        if self.updates == 1 or self.old_from_trainer:
            gap = (_trainer_log_probs(values, batch) - _sampler_log_probs(batch)).abs()
            numbers |= {"sampler_gap": gap, "sampler_gap_max": gap}
        if algorithm.reference is not None:
            reference = batch.columns[algorithm.reference.column]
            numbers["kl"] = kl_estimate(values, reference, algorithm.reference.estimate)
        return numbers

    def wants(self, example: Example) -> bool:
        return example.advantage != 0.0 or self.algorithm.reference is not None

    def token_weights(self, batch: TokenBatch) -> Tensor:
        return policy_gradient.token_weights(batch.sequence, batch.sequence_targets, self.algorithm.aggregation)

    def normaliser(self, examples: Sequence[Example]) -> float:
        tokens = sum(example.targets for example in examples)
        return policy_gradient.normaliser(tokens, len(examples), self.max_new_tokens, self.algorithm.aggregation)

    def _ratio(self, values: Tensor, batch: TokenBatch) -> Tensor:
        old = _trainer_log_probs(values, batch) if self.old_from_trainer else _sampler_log_probs(batch)
        level = self.algorithm.ratio
        return policy_gradient.importance_ratio(values, old, batch.sequence, batch.sequence_targets, level)


def _trainer_log_probs(values: Tensor, batch: TokenBatch) -> Tensor:
    """Return the trainer's log-probs `[N]` before the first update: in that update, the present ones."""
    return batch.columns[OLD] if OLD in batch.columns else values.detach()


def _sampler_log_probs(batch: TokenBatch) -> Tensor:
    assert batch.log_probs is not None  # a recipe allows these objectives on rollouts only
    return batch.log_probs
