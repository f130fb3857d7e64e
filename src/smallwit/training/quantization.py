"""Quantisation-aware training: a model learns with the weights that a GGUF file will hold."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from smallwit.models.number_formats import round_, weight_formats

_TINY = 1e-5
"""A change of a weight, as a part of its matrix's root mean square, that is far below any step of a format."""
_ROWS = 1024
"""Rows of a matrix that are looked at."""
_MOST_AT_BORDERS = 0.01
"""Share of a matrix's weights that so small a change rounds to another value; usual is a hundredth of that."""


class QuantizedWeights:
    """The weights of a model, rounded to the number formats of an export.

    The gradient by the rounded weights is applied to the unrounded ones, as if rounding had the slope 1: the
    straight-through estimator (Bengio et al. 2013, arXiv 1308.3432).
    """

    def __init__(self, model: Any, quant: str) -> None:
        formats = weight_formats(model, quant)
        self.weights = [(weight, formats[name]) for name, weight in model.named_parameters() if formats[name] != "F32"]
        # Kept for all steps: pieces of this size that come and go leave holes in the memory of a CPU.
        self._unrounded = [torch.empty_like(weight, requires_grad=False) for weight, _ in self.weights]

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Give the model the rounded weights within the context, whatever reads them; the others are kept aside."""
        for (weight, _), unrounded in zip(self.weights, self._unrounded, strict=True):
            unrounded.copy_(weight.detach())
        try:
            for weight, name in self.weights:
                round_(weight, name)
            yield
        finally:
            for (weight, _), unrounded in zip(self.weights, self._unrounded, strict=True):
                weight.detach().copy_(unrounded)

    def leave_borders(self) -> float:
        """Halve the distance to what they round to for weights of matrices with many halfway between two values.

        Weights that were read from a file of one more bit lie there by the million, and close to it once they were
        kept in 16 bits. The first updates, of one size for all weights however small (Adam), would move all of them at
        once by a whole step of the format. Returns the share of all weights that was moved. What they round to stays.
        """
        moved = 0
        for weight, name in self.weights:
            if _share_at_borders(weight.detach(), name) > _MOST_AT_BORDERS:
                rounded = weight.detach().clone()
                round_(rounded, name)
                weight.detach().lerp_(rounded, 0.5)
                moved += weight.numel()
        return moved / max(1, sum(weight.numel() for weight, _ in self.weights))


def _share_at_borders(weight: Tensor, name: str) -> float:
    """Return the share of weights, of the first rows of a matrix, that a tiny change rounds to another value."""
    rows = weight[:_ROWS]
    tiny = _TINY * rows.square().mean().sqrt()
    above, below = rows + tiny, rows - tiny
    for each in (above, below):
        round_(each, name)
    return float(((above - below).abs() > 100 * tiny).float().mean())
