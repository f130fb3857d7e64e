"""The output head of a causal language model, from last hidden states to logits."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from smallwit.errors import UserError

_DIVISORS = ("logits_scaling",)
_FACTORS = ("logit_scale", "lm_head_multiplier")
_SOFTCAPS = ("final_logit_softcapping", "logits_soft_cap")
_MULTIPLY = frozenset({"hyperclovax"})
"""Model types that multiply by what others of the same name divide by."""


@dataclass(frozen=True)
class OutputHead:
    """logits = cap * tanh(scale * h W^T / cap), or scale * h W^T without a cap, of hidden states h `[N, H]`.

    `weight` is W `[V, H]`. Granite, Cohere and Falcon-H1 have a `scale`, Gemma 2 a `softcap` (arXiv 2408.00118,
    section 2).
    """

    weight: Tensor
    scale: float = 1.0
    softcap: float | None = None

    def scaled(self, hidden: Tensor) -> Tensor:
        """Return the hidden states whose product with W^T needs no scale."""
        return hidden if self.scale == 1.0 else hidden * self.scale

    @torch.no_grad()
    def logits(self, hidden: Tensor, vocabulary: int, out: Tensor | None = None) -> Tensor:
        """Return the logits `[N, vocabulary]` of the first tokens of the vocabulary, in `out` if it is given."""
        weight = self.weight[:vocabulary].to(hidden.dtype)
        logits = torch.mm(self.scaled(hidden), weight.T, out=out)
        return logits if self.softcap is None else logits.div_(self.softcap).tanh_().mul_(self.softcap)


def output_head(model: Any) -> OutputHead:
    """Return the head of a model. Raises `UserError` for a head with a bias, which is not supported."""
    head = model.get_output_embeddings()
    if getattr(head, "bias", None) is not None:
        raise UserError(f"{type(model).__name__}: its language-model head has a bias, which is not supported")
    config = model.config.get_text_config()
    scale = 1.0
    for names, power in ((_DIVISORS, -1.0), (_FACTORS, 1.0)):
        for value in (getattr(config, name, None) for name in names):
            scale *= 1.0 if value is None else float(value) ** (abs(power) if config.model_type in _MULTIPLY else power)
    caps = [getattr(config, name) for name in _SOFTCAPS if getattr(config, name, None) is not None]
    return OutputHead(head.weight, scale, float(caps[0]) if caps else None)
