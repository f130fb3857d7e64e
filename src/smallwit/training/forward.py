"""Forward pass of a model's body: from tokens to the hidden states that predict the trained tokens."""

import torch
from torch import Tensor
from transformers import PreTrainedModel

from smallwit.models.attention import require_attention, row_layout
from smallwit.models.build import backbone
from smallwit.models.cpu_memory import embedding_inputs
from smallwit.models.head import output_head
from smallwit.objectives.batch import TokenBatch, rectangles


def forward_hidden(model: PreTrainedModel, batch: TokenBatch) -> Tensor:
    """Return the hidden states `[N, H]` that predict the trained tokens, scaled as the head's matrix wants them."""
    body = backbone(model)
    parts: list[Tensor] = []
    starts: list[int] = []
    require_attention(model)
    packed = batch.layout.segments is not None
    for rows in [slice(0, len(batch.row_lengths))] if packed else rectangles(batch.row_lengths):
        tokens = batch.tokens[rows, : max(batch.row_lengths[rows])]
        first = sum(map(len, parts))
        starts += range(first, first + tokens.numel(), tokens.shape[1])
        inputs = embedding_inputs(model, tokens)
        with row_layout(batch.layout):
            output = body(**inputs, position_ids=batch.position_ids, use_cache=False)
        parts.append(output.last_hidden_state.flatten(0, 1))
    width = batch.tokens.shape[1]
    positions = torch.tensor(starts, device=batch.tokens.device)[batch.positions // width] + batch.positions % width
    return output_head(model).scaled(torch.cat(parts)[positions])
