"""Linear layers with low-rank adapters as one operation: y = x W^T + s (x A^T) B^T (arXiv 2106.09685, section 4.1).

peft computes the same by three layers, a product with s and a sum, and casts x to the adapters' float32 first. Each is
a pass over tensors as large as the activations, and so is each of their gradients. Here both products are added in
place. Under autocast the sum is rounded once.
"""

from collections.abc import Callable
from types import MethodType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn.functional import linear


def fuse_adapters(model: torch.nn.Module) -> None:
    """Let the layers of `model` to which `add_adapters` has added adapters compute as one operation, in place.

    A layer computes as peft lets it where its adapters are disabled, merged, or of another dtype than its inputs.
    """
    from peft.tuners.lora import Linear

    layers: list[Any] = [module for module in model.modules() if type(module) is Linear]
    for layer in layers:
        if type(layer.base_layer) is torch.nn.Linear:
            layer.forward = MethodType(_forward_beside(layer.forward), layer)


def _forward_beside(plain: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def forward(layer: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        half = torch.is_autocast_enabled(x.device.type)
        dtype = torch.get_autocast_dtype(x.device.type) if half else x.dtype
        base = layer.base_layer
        if args or kwargs or layer.disable_adapters or layer.merged or base.weight.dtype != dtype:
            return plain(x, *args, **kwargs)
        (name,) = layer.active_adapters
        a, b = layer.lora_A[name].weight, layer.lora_B[name].weight
        return _AdaptedLinear.apply(x.to(dtype), base.weight, base.bias, a, b, layer.scaling[name])

    return forward


class _AdaptedLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float
    ) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            rows = x.flatten(0, -2)
            down, up = a.to(x.dtype), (b * scale).to(x.dtype)
            low = rows @ down.T
            y = linear(rows, weight, bias)
            torch.addmm(y, low, up.T, out=y)
        ctx.save_for_backward(x, weight, low, down, up)
        ctx.scale, ctx.dtype = scale, a.dtype  # type: ignore[attr-defined]
        return y.view(*x.shape[:-1], len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, low, down, up = ctx.saved_tensors  # type: ignore[attr-defined]
        scale, dtype = ctx.scale, ctx.dtype  # type: ignore[attr-defined]
        gradient, rows = upstream[0].flatten(0, -2), x.flatten(0, -2)
        by_low = gradient @ up
        by_a = (by_low.T @ rows).to(dtype)
        by_b = (gradient.T @ low).to(dtype).mul_(scale)
        by_x = None
        if ctx.needs_input_grad[0]:  # type: ignore[attr-defined]
            by_rows = gradient @ weight
            by_x = torch.addmm(by_rows, by_low, down, out=by_rows).view_as(x)
        return by_x, None, None, by_a, by_b, None
