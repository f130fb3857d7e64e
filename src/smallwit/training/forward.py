"""Forward pass of a model's body: from tokens to the hidden states that predict the trained tokens."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from smallwit.models.attention import require_attention, row_layout
from smallwit.models.build import backbone, is_stateful, layer_parameters
from smallwit.models.cpu_memory import embedding_inputs
from smallwit.models.head import output_head
from smallwit.objectives.batch import Example, TokenBatch, micro_batches, prompts_worth_sharing, rectangles


def token_batches(
    models: Sequence[PreTrainedModel],
    examples: Sequence[Example],
    *,
    pad: int,
    max_tokens: int,
    pack: int | None = None,
) -> Iterator[TokenBatch]:
    """Yield the examples in batches of at most `max_tokens` padded tokens, which all `models` can read.

    Prompts that several examples share are computed once where that saves time.
    """
    share = pack is None and prompts_worth_sharing(examples, min(map(sharing_gain, models)))
    for group in micro_batches(examples, max_tokens, pack, share):
        yield TokenBatch.of(group, pad, models[0].device, pack, share)


def sharing_gain(model: PreTrainedModel) -> float:
    """Return the FLOPs that a token of a shared prompt saves in each layer, forward and backward; 0 if none can be.

    On CUDA it is 0, as the kernel for packed rows has no prefix that sequences share.
    """
    if model.device.type != "cpu" or is_stateful(model):
        return 0.0
    return 6 * layer_parameters(model)


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
