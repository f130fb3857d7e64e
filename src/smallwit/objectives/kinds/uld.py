"""Universal logit distillation: a teacher with another tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import field_validator

from smallwit.objectives.distillation import Distillation, DistillationLoss
from smallwit.objectives.settings import SourceProtocol

if TYPE_CHECKING:
    from torch import Tensor

    from smallwit.objectives.batch import AlignedTokens, Example, TokenBatch
    from smallwit.objectives.teacher import Distributions


class ULD(Distillation):
    """sum_i |p_(i) - q_(i)|, p_(i) the i-th largest probability (Boizard et al. 2024, arXiv 2402.12030).

    For a teacher with another tokenizer, at the tokens where both tokenizations have read the same text.
    """

    cross_tokenizer: ClassVar[bool] = True
    kind: Literal["uld"]

    @field_validator("top_k")
    @classmethod
    def _all(cls, top_k: int | None) -> int | None:
        if top_k is not None:
            raise ValueError("uld compares all probabilities by rank; leave top_k out")
        return top_k

    def check_source(self, source: SourceProtocol) -> None:
        if source.kind == "text":
            raise ValueError("uld needs prompts and completions; read demonstrations or rollouts")
        if getattr(source, "loss_on", None) == "all":
            what = f"uld compares one completion an example, and source '{self.source}' has loss_on: all"
            raise ValueError(f"{what}; use loss_on: last")

    def evaluate(self, pair: Distributions, p: Tensor) -> tuple[Tensor, Tensor]:
        gap = p - pair.log_q.exp_()
        slopes = gap.sign().mul_(p)
        return gap.abs_().sum(1), slopes

    def build(self, source: SourceProtocol, hidden_size: int) -> ULDLoss:
        return ULDLoss(**self.loss_arguments(), teacher=self.teacher, divergence=self, temperature=self.temperature)


@dataclass(frozen=True)
class ULDLoss(DistillationLoss):
    """The loss of `ULD`: the mean over the aligned tokens."""

    @property
    def cross_tokenizer(self) -> bool:
        return True

    @property
    def per_token(self) -> bool:
        # The weights of tokens are known by example.
        return False

    def token_loss(self, values: Tensor, batch: TokenBatch) -> Tensor:
        return values

    def token_weights(self, batch: TokenBatch) -> Tensor:
        import torch

        aligned = [position >= 0 for example in batch.examples for position in self._aligned(example).positions]
        return torch.tensor(aligned, dtype=torch.float32, device=batch.labels.device)

    def wants(self, example: Example) -> bool:
        return self._aligned(example).count > 0

    def normaliser(self, examples: Sequence[Example]) -> float:
        # A step without aligned tokens has loss 0, and not 0 / 0.
        return float(max(sum(self._aligned(example).count for example in examples), 1))

    def _aligned(self, example: Example) -> AlignedTokens:
        assert self.teacher is not None  # a recipe gives one
        return example.aligned[self.teacher]
