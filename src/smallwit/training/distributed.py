"""The processes that train one model together: each takes its share of a step, and all take the same step.

Every process makes the whole step's examples, so that normalisers, advantages and whatever is journaled are those of
one process; what is costly to make (completions, verdicts, a reference's log-probs) each makes a share of and tells the
others. Then each has the forward and backward passes of a share of the examples, and gradients are summed. Data
parallelism as `DistributedDataParallel` does it, with sums in place of means.

A script that torchrun starts needs two lines more than one that runs alone:

    torch.distributed.init_process_group("gloo")    # or "cpu:gloo,cuda:nccl"
    trainer = Trainer(model, sources, objectives, ..., world=World.current())

Sources that make something costly take the same `world`. Gradients and numbers of all processes are then those of one.
"""

import os
import socket
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import chain
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

Item = TypeVar("Item")
Result = TypeVar("Result")

BUCKET_ELEMENTS = 1 << 24
"""Gradients are summed in buckets of about so many numbers (64 MiB): few messages, little memory beside them."""

PATIENCE = timedelta(days=7)
"""How long a process waits for the others, who may be saving or verifying; one that has died is noticed at once."""


class PeerLost(Exception):
    """Another process is gone, or has failed and says itself why."""


@dataclass(frozen=True)
class World:
    """This process' `rank` among `size`. Every method is called by all processes, in the same order."""

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

    def all_gather_object(self, value: Result) -> list[Result]:
        """The values of all processes, by rank. They are pickled: numpy's arrays are, without their base."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        with _together():
            distributed.all_gather_object(values, value)
        return values

    def sharded_map(
        self, function: Callable[[Sequence[Item]], Sequence[Result]], items: Sequence[Item]
    ) -> list[Result]:
        """`function` of the items, a list as long, where each process works on a run of them."""
        start, end = (len(items) * rank // self.size for rank in (self.rank, self.rank + 1))
        return list(chain.from_iterable(self.all_gather_object(list(function(items[start:end])))))

    def share(self, items: Sequence[Item], sizes: Sequence[int]) -> list[Item]:
        """This process' part of the items, in their order, such that each has about the same sum of `sizes`."""
        if self.size == 1:
            return list(items)
        loads = [0] * self.size
        mine = []
        for i in sorted(range(len(items)), key=lambda i: -sizes[i]):
            rank = loads.index(min(loads))
            loads[rank] += sizes[i]
            if rank == self.rank:
                mine.append(i)
        return [items[i] for i in sorted(mine)]

    def sum_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Sum the gradients over all processes. Where some have none it counts as zero; where none has, there is none
        afterwards."""
        if self.size == 1:
            return
        somewhere = self.all_gather_object([parameter.grad is not None for parameter in parameters])
        found = [p for p, *there in zip(parameters, *somewhere, strict=True) if any(there)]
        for parameter in found:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        with _together():
            for bucket in _buckets(found):
                _sum_bucket([parameter.grad for parameter in bucket if parameter.grad is not None])

    def copy_from_first(self, tensors: Iterable[Tensor]) -> None:
        """Put the first process' values into these tensors."""
        if self.size == 1:
            return
        with _together():
            for tensor in tensors:
                distributed.broadcast(tensor.detach(), src=0)

    def main_process_first(self, function: Callable[[], Result]) -> Result:
        """What `function` gives to this process; the first one calls it alone, and then all others do."""
        if self.first:
            result = function()
            self.all_gather_object(None)
            return result
        self.all_gather_object(None)
        return function()


SINGLE_PROCESS = World()


@contextmanager
def joined(rank: int, size: int, listener: socket.socket | int, device: str) -> Iterator[None]:
    """Be one of the processes that this machine trains one model with: within, `World.current()` is of `size`.

    They meet at a port: the first has a socket that listens there, the others its number. On GPUs each has its own.
    """
    # Nobody else has business with them. By itself gloo would look for the address of the machine's name.
    os.environ["GLOO_SOCKET_IFNAME"] = "lo0" if sys.platform == "darwin" else "lo"
    if isinstance(listener, socket.socket):
        port, descriptor = listener.getsockname()[1], listener.detach()
    else:
        port, descriptor = listener, None
    if device == "cuda":
        torch.cuda.set_device(rank)
    with _together():
        store = distributed.TCPStore("127.0.0.1", port, size, rank == 0, PATIENCE, master_listen_fd=descriptor)
        backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
        distributed.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PATIENCE)
    yield
    # Only where all went well: one that has failed leaves without waiting for the others.
    distributed.destroy_process_group()


@contextmanager
def _together() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise PeerLost(f"the processes that train together have lost each other: {error}") from error


def _buckets(parameters: Sequence[torch.nn.Parameter]) -> Iterator[list[torch.nn.Parameter]]:
    bucket: list[torch.nn.Parameter] = []
    for parameter in parameters:
        bucket.append(parameter)
        if sum(each.numel() for each in bucket) >= BUCKET_ELEMENTS:
            yield bucket
            bucket = []
    if bucket:
        yield bucket


def _sum_bucket(gradients: Sequence[Tensor]) -> None:
    if len(gradients) == 1:
        distributed.all_reduce(gradients[0])
        return
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    distributed.all_reduce(flat)
    for gradient, part in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))
