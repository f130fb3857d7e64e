"""What a model costs: floating-point operations, 2 for a multiply-add (Kaplan et al. 2020, arXiv 2001.08361, app. B).

Counted are the matrix products of the layers and of the head, and attention over the causal half of the context.
Padding, norms, softmax and recomputation are not.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from smallwit.models.head import output_head


@dataclass(frozen=True)
class Cost:
    """Forward cost of one model: per token in its layers and head, and per token and token of context in attention."""

    layers: float
    head: float
    attention: float

    @staticmethod
    def of(model: PreTrainedModel) -> "Cost":
        """Read off the weights and the configuration."""
        head = output_head(model).weight
        config = model.config
        tables = {id(module.weight) for module in model.modules() if isinstance(module, torch.nn.Embedding)}
        matrices = sum(
            parameter.numel()
            for parameter in model.parameters()
            if parameter.dim() == 2 and id(parameter) not in tables and parameter is not head
        )
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        width = config.num_attention_heads * head_dim
        return Cost(2.0 * matrices, 2.0 * head.numel(), 4.0 * width * config.num_hidden_layers)

    def forward(self, lengths: Iterable[int], projected: int) -> float:
        """FLOPs of a forward pass over sequences of these lengths, `projected` of whose tokens reach the head."""
        total = 0.0
        for length in lengths:
            total += self.layers * length + self.attention * length * (length + 1) / 2
        return total + self.head * projected

    def train(self, lengths: Iterable[int], projected: int) -> float:
        """FLOPs of forward and backward: three times the forward pass."""
        return 3.0 * self.forward(lengths, projected)
