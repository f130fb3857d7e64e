"""What a model costs: floating-point operations, 2 for a multiply-add (Kaplan et al. 2020, arXiv 2001.08361, app. B).

Counted are the matrix products of the layers (of experts those that a token meets) and of the head, and attention over
the causal half of the context, within a layer's window. Padding, norms, softmax, convolutions, the states of recurrent
layers and recomputation are not.

Backward has two products for a matrix: the gradient of its input, and its own; a frozen one (the base of LoRA) has only
the first. The few matrices that read frozen embeddings directly need no gradient of their input; it is counted.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer, LinearAttentionLayer

from smallwit.models.head import output_head

_ACTIVE_EXPERTS = ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k", "top_k_experts", "moe_top_k")


@dataclass(frozen=True)
class Cost:
    """Forward cost of one model: per token in its layers and head, and per token and token of context in attention.

    `windowed` has the attention of layers with a sliding window: by window, per token and token within it.
    `frozen_layers` and `frozen_head` are the parts of `layers` and `head` that are not trained.
    """

    layers: float
    head: float
    attention: float
    windowed: tuple[tuple[int, float], ...] = ()
    frozen_layers: float = 0.0
    frozen_head: float = 0.0

    @staticmethod
    def of(model: PreTrainedModel) -> "Cost":
        """Read off the weights and the configuration."""
        head = output_head(model).weight
        config = model.config
        tables = {id(module.weight) for module in model.modules() if isinstance(module, torch.nn.Embedding)}
        chosen = next((getattr(config, name) for name in _ACTIVE_EXPERTS if getattr(config, name, None)), None)
        matrices = [
            (2.0 * parameter.numel() * _active_share(parameter, chosen), parameter.requires_grad)
            for parameter in model.parameters()
            if parameter.dim() in (2, 3) and id(parameter) not in tables and parameter is not head
        ]
        full = 0.0
        windowed: dict[int, float] = defaultdict(float)
        for layer, own in zip(DynamicCache(config=config).layers, _layer_configs(config), strict=True):
            pairs = 4.0 * _attention_width(own)
            if isinstance(layer, DynamicSlidingWindowLayer):
                windowed[layer.sliding_window] += pairs
            elif not isinstance(layer, LinearAttentionLayer) or isinstance(layer, DynamicLayer):
                full += pairs
        projection = 2.0 * head.numel()
        return Cost(
            sum(cost for cost, _ in matrices),
            projection,
            full,
            tuple(sorted(windowed.items())),
            frozen_layers=sum(cost for cost, trained in matrices if not trained),
            frozen_head=0.0 if head.requires_grad else projection,
        )

    def forward(self, lengths: Sequence[int], projected: int) -> float:
        """Return the FLOPs of a forward pass over sequences of these lengths; `projected` tokens reach the head."""
        total = 0.0
        for length in lengths:
            total += self.layers * length + self.attention * _pairs(length, length)
            total += sum(pairs * _pairs(length, window) for window, pairs in self.windowed)
        return total + self.head * projected

    def train(self, lengths: Sequence[int], projected: int) -> float:
        """Return the FLOPs of forward and backward: three times the forward pass, twice for frozen matrices."""
        spared = self.frozen_layers * sum(lengths) + self.frozen_head * projected
        return 3.0 * self.forward(lengths, projected) - spared


def _pairs(length: int, window: int) -> float:
    """Return how many tokens all tokens of a sequence see within their window."""
    short = min(length, window)
    return short * (short + 1) / 2 + (length - short) * short


def _active_share(parameter: torch.Tensor, chosen: int | None) -> float:
    """Return the share of a matrix that a token meets: of a table of experts `[E, a, b]` that of the chosen ones."""
    if parameter.dim() == 2 or parameter.shape[1] == 1:  # a matrix, or the kernel of a convolution
        return 1.0
    return 1.0 if chosen is None else min(1.0, chosen / parameter.shape[0])


def _layer_configs(config: Any) -> list[Any]:
    """Return the configuration of each layer: Gemma 4's differ in the width of their heads."""
    return list(getattr(config, "per_layer_config", None) or [config] * config.num_hidden_layers)


def _attention_width(config: Any) -> int:
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(config.num_attention_heads * head_dim)
