"""Train one model in several processes: each takes its share of a step, and all take the same step.

Data parallelism as in `DistributedDataParallel`, with sums in place of means. Every process has the examples of the
whole step, so normalisers and advantages are those of a single process. Costly parts (completions, verdicts, a
reference's log-probs) are shared: each process makes some, and all gather them. Then each process runs the forward and
backward passes of its share of the examples, and gradients are summed.

A script that torchrun starts needs two lines more than one that runs alone:

    torch.distributed.init_process_group("gloo")    # or "cpu:gloo,cuda:nccl"
    trainer = Trainer(model, sources, objectives, ..., world=World.current())

Sources with costly parts take the same `world`. Gradients and metrics are then those of a single process.
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
"""Size of a bucket of gradients that are summed together (64 MiB): few messages, little extra memory."""

PEER_TIMEOUT = timedelta(days=7)
"""How long a process waits for others that save or verify. A process that has died is noticed at once."""


class PeerLost(Exception):
    """Another process has failed, and reports its own error, or is gone."""


@dataclass(frozen=True)
class World:
    """The `rank` of this process among `size`. All processes must call the same methods in the same order."""

    rank: int = 0
    size: int = 1

    @staticmethod
    def current() -> "World":
        """Return the world that torch.distributed was initialised with, a single process otherwise."""
        if distributed.is_available() and distributed.is_initialized():
            return World(distributed.get_rank(), distributed.get_world_size())
        return World()

    @property
    def first(self) -> bool:
        """Whether this is the main process, which logs and writes files."""
        return self.rank == 0

    def all_gather_object(self, value: Result) -> list[Result]:
        """Return the values of all processes, by rank. They are pickled: numpy arrays without their base."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        with _peer_errors():
            distributed.all_gather_object(values, value)
        return values

    def sharded_map(
        self, function: Callable[[Sequence[Item]], Sequence[Result]], items: Sequence[Item]
    ) -> list[Result]:
        """Return `function(items)`, one result for each item; each process computes a contiguous share of them."""
        start, end = (len(items) * rank // self.size for rank in (self.rank, self.rank + 1))
        return list(chain.from_iterable(self.all_gather_object(list(function(items[start:end])))))

    def share(self, items: Sequence[Item], sizes: Sequence[int]) -> list[Item]:
        """Return this process' share of the items, in order. All shares have about the same sum of `sizes`."""
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
        """Sum gradients over all processes. `None` counts as zero; it stays `None` if no process has a gradient."""
        if self.size == 1:
            return
        somewhere = self.all_gather_object([parameter.grad is not None for parameter in parameters])
        found = [p for p, *there in zip(parameters, *somewhere, strict=True) if any(there)]
        for parameter in found:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        with _peer_errors():
            for bucket in _buckets(found):
                _sum_bucket([parameter.grad for parameter in bucket if parameter.grad is not None])

    def copy_from_first(self, tensors: Iterable[Tensor]) -> None:
        """Copy the main process' values into these tensors."""
        if self.size == 1:
            return
        with _peer_errors():
            for tensor in tensors:
                distributed.broadcast(tensor.detach(), src=0)

    def main_process_first(self, function: Callable[[], Result]) -> Result:
        """Return `function()`, called by the main process first and then by all others."""
        if self.first:
            result = function()
            self.all_gather_object(None)
            return result
        self.all_gather_object(None)
        return function()


SINGLE_PROCESS = World()


@contextmanager
def joined(rank: int, size: int, listener: socket.socket | int, device: str) -> Iterator[None]:
    """Join the `size` processes of this machine that train one model: within, `World.current()` has that size.

    The main process has a `listener`, a socket; the others have its port. On GPUs each process has a GPU of its own.
    """
    # The loopback device keeps other machines out; by itself gloo would look for the address of the machine's name.
    os.environ["GLOO_SOCKET_IFNAME"] = "lo0" if sys.platform == "darwin" else "lo"
    if isinstance(listener, socket.socket):
        port, descriptor = listener.getsockname()[1], listener.detach()
    else:
        port, descriptor = listener, None
    if device == "cuda":
        torch.cuda.set_device(rank)
    with _peer_errors():
        store = distributed.TCPStore("127.0.0.1", port, size, rank == 0, PEER_TIMEOUT, master_listen_fd=descriptor)
        backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
        distributed.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PEER_TIMEOUT)
    yield
    # Not in a `finally`: a process that has failed must leave without waiting for the others.
    distributed.destroy_process_group()


@contextmanager
def _peer_errors() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise PeerLost(f"the processes that train together have lost contact: {error}") from error


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
