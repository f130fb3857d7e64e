"""silu(gate) * up of a gated feed-forward layer (SwiGLU, Shazeer 2020, arXiv 2002.05202), in less memory.

Autograd keeps gate, silu(gate) and up for the backward pass; silu(gate) is made again there from gate instead. The
numbers are the same, bit for bit: for a model of Qwen2.5-0.5B's shape it is a seventh of what a token leaves behind.
"""

from types import MethodType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import silu

LAYERS = frozenset({"LlamaMLP", "MistralMLP", "Qwen2MLP", "Qwen3MLP"})
"""The classes of transformers whose forward pass is down(act(gate(x)) * up(x)), and nothing else."""


def save_gate_memory(model: torch.nn.Module) -> None:
    """Give the model's gated layers the forward pass of this module; others stay as they are."""
    for module in model.modules():
        if type(module).__name__ in LAYERS and getattr(module.config, "hidden_act", None) == "silu":
            module.forward = MethodType(_forward, module)


def _forward(layer: Any, x: Tensor) -> Tensor:
    hidden: Tensor = layer.down_proj(_SiluTimes.apply(layer.gate_proj(x), layer.up_proj(x)))
    return hidden


class _SiluTimes(torch.autograd.Function):
    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return silu(gate).mul_(up)

    @staticmethod
    @once_differentiable
    def backward(ctx: torch.autograd.function.FunctionCtx, *upstream: Tensor) -> tuple[Tensor, Tensor]:
        (gate, up), (gradient,) = ctx.saved_tensors, upstream  # type: ignore[attr-defined]
        by_gate = torch.ops.aten.silu_backward(gradient * up, gate)
        return by_gate, silu(gate).mul_(gradient)
