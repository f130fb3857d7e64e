"""Products of activations with weights on a CPU, in the form that is fastest for their shapes. They have no gradient.

MKL, which torch calls for float32, packs the weight anew in each call: with few rows of activations that takes as long
as the product. oneDNN is up to twice as fast there. In bfloat16 torch calls oneDNN, which packs the right factor: it is
fastest with the weight as the left one, where the result may stay turned. The choice depends on shapes alone, so a
repeated run computes the same bits. Elsewhere these are torch's own products.
"""

import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn.functional import linear, silu

SMALL_WEIGHT = 1 << 18
"""Elements of a weight below which no form is faster than torch's own."""
FEW_ROWS, MANY_ROWS = 8, 256
"""Rows of activations below which MKL is fastest with the weight as its left factor, and above which it is as fast as
oneDNN, but for large weights."""
LARGE_WEIGHT = 1 << 21
"""Elements of a weight from which oneDNN is faster for many rows too, a block at a time."""
BLOCK_ROWS = 2048
"""Rows of a weight that are multiplied at a time: their result is in the caches when it is copied to its place."""

# Measured on x86 alone.
_ONEDNN = torch.backends.mkldnn.is_available() and platform.machine() in ("x86_64", "AMD64")


@torch.no_grad()
def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x W^T + bias `[..., N]` of activations x `[..., K]` and a weight W `[N, K]`."""
    rows = x.numel() // max(1, x.shape[-1])
    fast = _ONEDNN and weight.numel() >= SMALL_WEIGHT and 2 <= rows <= MANY_ROWS
    if not fast or not _plain(x, weight):
        return linear(x, weight, bias)
    if rows >= FEW_ROWS:
        return _onednn(x, weight, bias)
    found = torch.mm(weight, x.reshape(rows, -1).T).T.contiguous()
    return (found if bias is None else found.add_(bias)).view(*x.shape[:-1], len(weight))


@torch.no_grad()
def write_product(x: Tensor, weight: Tensor, out: Tensor) -> Tensor:
    """Write x W^T to `out` `[n, N]`, of x `[n, K]` and W `[N, K]`, and return it: for results larger than the caches.

    Memory that is new in each call would cost more than the product.
    """
    fast = _ONEDNN and weight.numel() >= LARGE_WEIGHT and len(x) >= FEW_ROWS
    if not fast or not _plain(x, weight):
        return torch.mm(x, weight.T, out=out)
    for start in range(0, len(weight), BLOCK_ROWS):
        rows = slice(start, start + BLOCK_ROWS)
        out[:, rows] = _onednn(x, weight[rows], None)
    return out


def turns_swiglu(x: Tensor, gate: torch.nn.Linear, up: torch.nn.Linear, down: torch.nn.Linear) -> bool:
    """Return whether `turned_swiglu` is faster than the three layers, and computes the same."""
    rows = x.numel() // max(1, x.shape[-1])
    half = x.device.type == "cpu" and x.dtype == torch.bfloat16
    if not (half and _ONEDNN and 2 <= rows <= MANY_ROWS and gate.weight.numel() >= SMALL_WEIGHT):
        return False
    return all(
        type(each) is torch.nn.Linear and each.bias is None and each.weight.dtype == torch.bfloat16
        for each in (gate, up, down)
    )


@torch.no_grad()
def turned_swiglu(x: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """Return (silu(x G^T) * (x U^T)) D^T `[..., H]`, of x `[..., H]` and G, U `[I, H]`, D `[H, I]`."""
    turned = x.flatten(0, -2).T
    hidden = silu(torch.mm(gate, turned)).mul_(torch.mm(up, turned))
    return torch.mm(down, hidden).T.contiguous().view_as(x)


@contextmanager
def fast_linears(modules: Sequence[torch.nn.Linear]) -> Iterator[None]:
    """Let these modules compute with `product` inside of the block: no gradient flows through them."""
    for module in modules:
        # As an attribute of the instance it hides the method of the class.
        module.__dict__["forward"] = _forward_of(module)
    try:
        yield
    finally:
        for module in modules:
            del module.__dict__["forward"]


def linears_of(model: torch.nn.Module) -> list[torch.nn.Linear]:
    """Return the modules that `fast_linears` can make faster: large ones of a model in float32 on a CPU."""
    found = (module for module in model.modules() if type(module) is torch.nn.Linear)
    return [each for each in found if _plain(each.weight, each.weight) and each.weight.numel() >= SMALL_WEIGHT]


def _forward_of(module: torch.nn.Linear) -> Callable[[Tensor], Tensor]:
    return lambda x: product(x, module.weight, module.bias)


def _plain(x: Tensor, weight: Tensor) -> bool:
    """Return whether both are in float32 on a CPU, and are multiplied as such."""
    float32 = x.dtype == weight.dtype == torch.float32
    return float32 and x.device.type == "cpu" and not torch.is_autocast_enabled("cpu")


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    # Without a name of its own in torch; compiled graphs call it.
    found: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return found
