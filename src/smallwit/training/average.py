"""Exponential moving average (EMA) of the weights. It is evaluated and published in place of the last weights."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor


class WeightAverage:
    """average <- d * average + (1 - d) * weights after every step, with d = min(decay, (1 + n) / (10 + n)).

    The bound is a warmup: without it the average would stay near the initial weights for 1 / (1 - decay) steps.
    `weights` are the parameters themselves, by name. The averages are where the weights are, on a GPU too: every step
    reads all weights, which takes it a millisecond, and bringing them to the host each time many times as long.
    """

    def __init__(self, weights: Mapping[str, Tensor], decay: float) -> None:
        self.weights, self.decay = weights, decay
        self.tensors = {name: weight.detach().clone() for name, weight in weights.items()}

    @torch.no_grad()
    def update(self, steps: int) -> None:
        """Update the average with the weights after `steps` steps."""
        share = 1.0 - min(self.decay, (1 + steps) / (10 + steps))
        for name, average in self.tensors.items():
            average.lerp_(self.weights[name].detach(), share)

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy the averages of a checkpoint, on the CPU, to the device of the weights."""
        for name, average in self.tensors.items():
            average.copy_(tensors[name])

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Give the model the averaged weights within the context."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        """Exchange the averages and the weights, one by one: no copy of all of them is needed."""
        for name, weight in self.weights.items():
            last = weight.clone()
            weight.copy_(self.tensors[name])
            self.tensors[name].copy_(last)
