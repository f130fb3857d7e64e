"""The processes that train one model together: each takes its share of a step, and all take the same step.

Data parallelism as `DistributedDataParallel` does it, with sums in place of means: normalisers are summed over all
processes before the first backward, so summed gradients are those of one process with the whole step.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

Item = TypeVar("Item")

BUCKET_ELEMENTS = 1 << 24
"""Gradients are summed in buckets of about so many numbers (64 MiB): few messages, little memory beside them."""


@dataclass(frozen=True)
class World:
    """This process' `rank` among `size`."""

    rank: int = 0
    size: int = 1

    @staticmethod
    def current() -> "World":
        """As torch.distributed was initialised, by torchrun for example; one process alone where it was not."""
        if distributed.is_available() and distributed.is_initialized():
            return World(distributed.get_rank(), distributed.get_world_size())
        return World()

    @property
    def first(self) -> bool:
        """Whether this process speaks and writes for all."""
        return self.rank == 0

    def share(self, items: Sequence[Item]) -> list[Item]:
        """Every `size`-th item, from `rank` on."""
        return list(items[self.rank :: self.size])

    def sums(self, numbers: Sequence[float]) -> list[float]:
        """Each number summed over all processes, in float64."""
        if self.size == 1:
            return list(numbers)
        total = torch.tensor(numbers, dtype=torch.float64)
        distributed.all_reduce(total)
        return total.tolist()

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Sum the gradients over all processes; one that a process lacks counts as zero."""
        if self.size == 1:
            return
        bucket: list[torch.nn.Parameter] = []
        elements = 0
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            bucket.append(parameter)
            elements += parameter.numel()
            if elements >= BUCKET_ELEMENTS:
                _sum_bucket(bucket)
                bucket, elements = [], 0
        _sum_bucket(bucket)

    def everyones(self, value: Any) -> list[Any]:
        """The values of all processes, by rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        distributed.all_gather_object(values, value)
        return values

    def of_first(self, value: Any) -> Any:
        """What the first process gives; what the others give is dropped."""
        if self.size == 1:
            return value
        box = [value]
        distributed.broadcast_object_list(box, src=0)
        return box[0]


def _sum_bucket(bucket: Sequence[torch.nn.Parameter]) -> None:
    if not bucket:
        return
    gradients: list[Tensor] = [parameter.grad for parameter in bucket if parameter.grad is not None]
    if len(gradients) == 1:
        distributed.all_reduce(gradients[0])
        return
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    distributed.all_reduce(flat)
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))
