"""Matrix products on a CPU in float32, in the form that is fast for their shape."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

_LARGE = 1 << 18
"""Elements of a weight from which on oneDNN is faster than the product that `linear` calls, at any number of rows."""


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x W^T + b `[..., N]` of `x` `[..., K]` and `weight` `[N, K]`, without a gradient."""
    kernel = _onednn()
    if kernel is None or weight.numel() < _LARGE or x.dtype != torch.float32 or weight.dtype != torch.float32:
        return linear(x, weight, bias)
    made: Tensor = kernel(x, weight, bias, "none", [], "")
    return made


@contextmanager
def fast_linears(modules: Sequence[torch.nn.Linear]) -> Iterator[None]:
    """Let these modules compute with `product` inside of the block. Raises nothing; no gradient flows through them."""
    for module in modules:
        # As an attribute of the instance it hides the method of the class.
        module.__dict__["forward"] = _forward_of(module)
    try:
        yield
    finally:
        for module in modules:
            del module.__dict__["forward"]


def linears_of(model: torch.nn.Module) -> list[torch.nn.Linear]:
    """Return the modules that `fast_linears` makes faster: large ones of a model in float32 on a CPU."""
    if _onednn() is None:
        return []
    found = (module for module in model.modules() if type(module) is torch.nn.Linear)
    return [module for module in found if _gains(module.weight)]


def _gains(weight: Tensor) -> bool:
    return weight.device.type == "cpu" and weight.dtype == torch.float32 and weight.numel() >= _LARGE


def _forward_of(module: torch.nn.Linear) -> Callable[[Tensor], Tensor]:
    return lambda x: product(x, module.weight, module.bias)


@cache
def _onednn() -> Callable[..., Any] | None:
    """Return oneDNN's product, which has no name of its own in torch, or `None` where torch is built without it."""
    try:
        kernel: Callable[..., Any] = torch.ops.mkldnn._linear_pointwise
    except AttributeError:
        return None
    return kernel if torch.backends.mkldnn.is_available() else None
