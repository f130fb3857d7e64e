"""The exponential moving average of weights, which is measured and handed over in place of the last weights."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor


class WeightAverage:
    """average <- d * average + (1 - d) * weights after every step, with d = min(decay, (1 + n) / (10 + n)).

    The bound lets the first n steps weigh less: a fresh average would stay near the initial weights for 1 / (1 - decay)
    steps. `weights` are the parameters themselves, by name.
    """

    def __init__(self, weights: Mapping[str, Tensor], decay: float) -> None:
        self.weights, self.decay = weights, decay
        self.tensors = {name: weight.detach().clone() for name, weight in weights.items()}

    @torch.no_grad()
    def update(self, steps: int) -> None:
        """Take in the weights after `steps` steps."""
        share = 1.0 - min(self.decay, (1 + steps) / (10 + steps))
        for name, average in self.tensors.items():
            average.lerp_(self.weights[name].detach(), share)

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy a checkpoint's averages, which lie on the CPU, into these, which lie where the weights do."""
        for name, average in self.tensors.items():
            average.copy_(tensors[name])

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The model has the averaged weights for a while."""
        last = {name: weight.detach().clone() for name, weight in self.weights.items()}
        self.put(self.tensors)
        try:
            yield
        finally:
            self.put(last)

    @torch.no_grad()
    def put(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy these values into the model's weights."""
        for name, weight in self.weights.items():
            weight.copy_(tensors[name])
