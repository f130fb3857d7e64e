"""Forward pass of a model's body: from tokens to the hidden states that predict the trained tokens."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from transformers import PreTrainedModel

from smallwit.device import give_back_freed_memory
from smallwit.models.attention import require_attention, row_layout
from smallwit.models.build import backbone
from smallwit.models.head import output_head
from smallwit.objectives.batch import TokenBatch, rectangles

LARGE_MODEL = 100_000_000
"""Parameters from which memory is scarcer than the time to give it back."""


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
        inputs = _inputs(model, tokens)
        with row_layout(batch.layout):
            output = body(**inputs, position_ids=batch.position_ids, use_cache=False)
        parts.append(output.last_hidden_state.flatten(0, 1))
    width = batch.tokens.shape[1]
    positions = torch.tensor(starts, device=batch.tokens.device)[batch.positions // width] + batch.positions % width
    return output_head(model).scaled(torch.cat(parts)[positions])


def give_back_freed(model: PreTrainedModel) -> None:
    """Let a large model on a CPU give freed memory back before each forward pass, and now and then in the backward.

    The C library keeps what is freed: gradients first, then activations, in pieces of other sizes than those that come
    next. For a model of half a billion parameters that is a gigabyte more. What one layer frees in a pass the next ones
    use: it is given back after every fourth layer, and at the end, where most gradients are there, every second.
    """
    if model.num_parameters() <= LARGE_MODEL or model.device.type != "cpu":
        return
    body = backbone(model)
    body.register_forward_pre_hook(lambda module, _: give_back_freed_memory() if module.training else None)
    for layers in body.children():
        if isinstance(layers, torch.nn.ModuleList):
            third = len(layers) // 3  # the first layers are the last of a backward pass
            for layer in [*layers[:third:2], *layers[third::4]]:
                layer.register_full_backward_hook(lambda *_: give_back_freed_memory())


def _inputs(model: Any, tokens: Tensor) -> dict[str, Tensor]:
    """The tokens, or where the table is trained and also the head, what is looked up in it for them."""
    table = model.get_input_embeddings()
    # A subclass may do more than look up: Gemma's scales.
    if type(table) is not torch.nn.Embedding or not table.weight.requires_grad or not torch.is_grad_enabled():
        return {"input_ids": tokens}
    if table.weight is not output_head(model).weight:
        return {"input_ids": tokens}
    anchor = torch.zeros((), device=tokens.device, requires_grad=True)
    return {"inputs_embeds": _TiedLookup.apply(anchor, table.weight, tokens, table.padding_idx)}


class _TiedLookup(torch.autograd.Function):
    """A lookup that adds its gradient to the rows that were looked up, in the gradient that the head leaves there.

    Autograd would make another table of zeros for it: for 151,936 rows of 896 numbers 545 MB and two passes over them.
    """

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx, anchor: Tensor, table: Tensor, tokens: Tensor, padding: int | None
    ) -> Tensor:
        ctx.table, ctx.tokens, ctx.padding = table, tokens, padding  # type: ignore[attr-defined]
        ctx.set_materialize_grads(False)
        return table.detach()[tokens]

    @staticmethod
    @once_differentiable
    def backward(ctx: torch.autograd.function.FunctionCtx, *upstream: Tensor | None) -> tuple[None, ...]:
        table, tokens, gradient = ctx.table, ctx.tokens, upstream[0]  # type: ignore[attr-defined]
        if gradient is not None:
            rows, added = tokens.flatten(), gradient.flatten(0, -2).to(table.dtype)
            if ctx.padding is not None:  # type: ignore[attr-defined]
                # As torch.nn.Embedding does: the padding's row is learnt by the head alone.
                added = added * (rows != ctx.padding)[:, None]  # type: ignore[attr-defined]

            def add() -> None:
                if table.grad is None:
                    table.grad = torch.zeros_like(table)
                table.grad.index_add_(0, rows, added)

            # When all is done: the head's gradient, though made first, can be put in its place last.
            torch.autograd.Variable._execution_engine.queue_callback(add)
        return None, None, None, None
