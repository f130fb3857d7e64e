"""Quantisation-aware training: a model learns with the weights that a GGUF file will hold."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from smallwit.models.number_formats import round_, weight_formats


class QuantizedWeights:
    """The weights of a model, rounded to the number formats of an export.

    The gradient by the rounded weights is applied to the unrounded ones, as if rounding had the slope 1: the
    straight-through estimator (Bengio et al. 2013, arXiv 1308.3432).
    """

    def __init__(self, model: Any, quant: str) -> None:
        formats = weight_formats(model, quant)
        self.weights = [(weight, formats[name]) for name, weight in model.named_parameters() if formats[name] != "F32"]

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Give the model the rounded weights within the context, whatever reads them; the others are kept aside."""
        kept = [weight.detach().clone() for weight, _ in self.weights]
        try:
            for weight, name in self.weights:
                round_(weight, name)
            yield
        finally:
            for (weight, _), unrounded in zip(self.weights, kept, strict=True):
                weight.detach().copy_(unrounded)
