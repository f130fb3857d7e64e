"""Rounding of matrices by what they do to texts: the outputs change least, not the weights (GPTQ).

Frantar et al. 2022, arXiv 2210.17323. The values lie where the file's own rounding keeps them, bit for bit.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from smallwit.models.flops import Cost
from smallwit.models.number_formats import BLOCK, LEVELS, inverse, round_, scales, weight_formats

TOKENS = 16_384
"""Tokens of texts that are read, at most."""
_DAMPING = 0.01
"""Part of the mean of the moments' diagonal that is added to it, as in the paper."""
_COLUMNS = 128
"""Columns behind which the others are updated at once (the paper's lazy batch updates)."""


@dataclass(frozen=True)
class Calibration:
    """What fitting to texts gave: tokens that were read, and how far the outputs of the matrices are off on them.

    `fitted` and `rounded` are parts of the outputs' size (root mean squares over matrices): now, and where each weight
    is rounded by itself. `flops` are those of the forward passes and of the second moments.
    """

    tokens: int
    flops: float
    fitted: float
    rounded: float


@torch.no_grad()
def calibrate(model: Any, texts: Sequence[Sequence[int]], quant: str, tell: Callable[[float], None]) -> Calibration:
    """Move the weights of a model to values of the number format `quant` that change its outputs on texts least.

    `texts` are token ids. The head and the table of embeddings are left alone, and so are matrices in F16. `tell` gets
    the share that is done. The model is in float32 on a CPU; the second moments of inputs take 4 bytes for each pair of
    inputs of each matrix (2.5 GB for Qwen2.5-0.5B).
    """
    formats, head = weight_formats(model, quant), model.get_output_embeddings()
    names = {
        layer: formats[f"{name}.weight"]
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear) and layer is not head and formats[f"{name}.weight"] in LEVELS
    }
    moments = second_moments(model, list(names), texts, lambda share: tell(share / 2))
    squares = []
    for index, (layer, name) in enumerate(names.items()):
        weight, moment = layer.weight, moments.pop(layer)
        plain = weight.clone()
        round_(plain, name)
        fitted = fitted_weight(weight, moment, name)
        sizes = [_size(each, moment) for each in (weight, fitted - weight, plain - weight)]
        squares.append([size / sizes[0] if sizes[0] else 0.0 for size in sizes[1:]])
        weight.copy_(fitted)
        tell(0.5 + (index + 1) / len(names) / 2)
    off = [math.sqrt(sum(column) / len(squares)) for column in zip(*squares, strict=True)] or [0.0, 0.0]
    tokens = sum(map(len, texts))
    products = 2.0 * tokens * sum(layer.in_features**2 for layer in names)
    return Calibration(tokens, Cost.of(model).forward([len(text) for text in texts], 0) + products, *off)


def second_moments(
    model: Any, layers: Sequence[nn.Linear], texts: Sequence[Sequence[int]], tell: Callable[[float], None]
) -> dict[nn.Linear, Tensor]:
    """Return the sum over tokens of x xᵀ `[inputs, inputs]` for the inputs x of each layer."""
    moments: dict[nn.Linear, Tensor] = {}

    def add(layer: Any, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0].flatten(0, -2)
        if layer not in moments:
            moments[layer] = x.new_zeros(x.shape[1], x.shape[1])
        moments[layer].addmm_(x.T, x)

    hooks = [layer.register_forward_pre_hook(add) for layer in layers]
    try:
        for index, text in enumerate(texts):
            model.base_model(input_ids=torch.tensor([text]), use_cache=False)
            tell((index + 1) / len(texts))
    finally:
        for hook in hooks:
            hook.remove()
    return moments


def fitted_weight(weight: Tensor, moment: Tensor, name: str) -> Tensor:
    """Return values of the number format `name` for a weight `[outputs, inputs]`, by the second moments of its inputs.

    Column by column, what rounding changes is made up for by the columns behind (algorithm 1 of the paper). The scale
    of a block is that of its weights when it is reached, and its largest number keeps its place, so that the file's own
    rounding finds the same scale.
    """
    factor = _inverse_factor(moment)
    left, columns = weight.T.clone(memory_format=torch.contiguous_format), weight.shape[1]
    lowest, highest, largest = LEVELS[name]
    for start in range(0, columns, _COLUMNS):
        part = left[start : start + _COLUMNS]
        square = factor[start : start + _COLUMNS, start : start + _COLUMNS]
        errors = torch.empty_like(part)
        for index in range(len(part)):
            if index % BLOCK == 0:
                scale, place = scales(part[index : index + BLOCK].T, name)
                scale = scale.half().float()  # as the file holds it
                factors = inverse(scale)
            column = part[index]
            level = (column * factors).round().clamp(lowest, highest)
            rounded = torch.where(place == index % BLOCK, float(largest), level) * scale
            errors[index] = (column - rounded) / square[index, index]
            part[index + 1 :].addr_(square[index, index + 1 :], errors[index], alpha=-1)
            part[index] = rounded
        behind = left[start + _COLUMNS :]
        behind.addmm_(factor[start : start + _COLUMNS, start + _COLUMNS :].T, errors, alpha=-1)
    return left.T.contiguous()


def _inverse_factor(moment: Tensor) -> Tensor:
    """Return the upper Cholesky factor of the inverse of damped second moments."""
    damped = moment.clone()
    diagonal = damped.diagonal()
    diagonal[diagonal == 0] = 1.0  # an input that is always 0
    diagonal.add_(_DAMPING * diagonal.mean())
    return torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(damped)), upper=True)


def _size(weight: Tensor, moment: Tensor) -> float:
    """Return the sum of the squares of a weight's outputs."""
    return float(((weight @ moment) * weight).sum())
