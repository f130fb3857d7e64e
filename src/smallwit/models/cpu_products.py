"""Products of activations with weights on a CPU, in the form that is fastest for their shapes. They have no gradient.

MKL packs the weight anew in each call and is slow at large weights. oneDNN is up to 1.7 times as fast there; at small
ones its call costs more than it saves. The choice depends on shapes alone, so a repeated run computes the same bits.
On other devices, in other number formats and under autocast these are torch's own products.
"""

import platform

import torch
from torch import Tensor
from torch.nn.functional import linear

LARGE_WEIGHT = 1 << 21
"""Elements of a weight from which oneDNN is faster."""

FEW_ROWS = 32
"""Rows of activations below which MKL is faster with the weight as its left factor."""

BLOCK_ROWS = 2048
"""Rows of a weight that are multiplied at a time: their result is in the caches when it is copied to its place."""

# Measured on x86 alone.
_ONEDNN = torch.backends.mkldnn.is_available() and platform.machine() in ("x86_64", "AMD64")


@torch.no_grad()
def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x W^T + bias `[..., N]` of activations x `[..., K]` and a weight W `[N, K]`.

    The result need not be contiguous.
    """
    if not _plain(x, weight):
        return linear(x, weight, bias)
    rows = x.numel() // max(1, x.shape[-1])
    if _large(rows, weight):
        return _onednn(x, weight, bias)
    if 0 < rows < FEW_ROWS:
        found = torch.mm(weight, x.reshape(rows, -1).T).T
        return (found if bias is None else found.add_(bias)).reshape(*x.shape[:-1], len(weight))
    return linear(x, weight, bias)


@torch.no_grad()
def write_product(x: Tensor, weight: Tensor, out: Tensor) -> Tensor:
    """Write x W^T to `out` `[n, N]`, of x `[n, K]` and W `[N, K]`, and return it: for results larger than the caches.

    Memory that is new in each call would cost more than the product.
    """
    if not _plain(x, weight) or not _large(len(x), weight):
        return torch.mm(x, weight.T, out=out)
    for start in range(0, len(weight), BLOCK_ROWS):
        rows = slice(start, start + BLOCK_ROWS)
        out[:, rows] = _onednn(x, weight[rows], None)
    return out


def _plain(x: Tensor, weight: Tensor) -> bool:
    """Return whether both are in float32 on a CPU, and are multiplied as such."""
    float32 = x.dtype == weight.dtype == torch.float32
    return float32 and x.device.type == "cpu" and not torch.is_autocast_enabled("cpu")


def _large(rows: int, weight: Tensor) -> bool:
    return _ONEDNN and rows >= FEW_ROWS and weight.numel() >= LARGE_WEIGHT


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    found: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return found
