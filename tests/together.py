"""Functions called in several processes at once, which are joined as those of a stage are."""

import pickle
import socket
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from multiprocessing.connection import Connection
from typing import Any

import torch

from smallwit.pipeline.processes import fork_server
from smallwit.training.distributed import World, joined


class Elsewhere(Exception):
    """A process has failed; the message is its traceback."""


def together(function: Callable[..., Any], *arguments: Any, size: int = 2) -> list[Any]:
    """What `function(world, *arguments)` gives in each of `size` processes, by rank. Raises `Elsewhere`."""
    context = fork_server()
    pipes = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        for rank in range(size):
            here, there = context.Pipe(duplex=False)
            meeting = listener if rank == 0 else listener.getsockname()[1]
            process = context.Process(target=_call, args=(function, arguments, rank, size, meeting, there), daemon=True)
            process.start()
            there.close()
            pipes.append((process, here))
    results = []
    for _, pipe in pipes:
        well, result = pickle.loads(pipe.recv_bytes())
        if not well:
            for process, _ in pipes:
                process.kill()
            raise Elsewhere(result)
        results.append(result)
    for process, _ in pipes:
        process.join()
    return results


def _call(
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    rank: int,
    size: int,
    meeting: socket.socket | int,
    pipe: Connection,
) -> None:
    torch.set_num_threads(1)
    try:
        with joined(rank, size, meeting, "cpu") if size > 1 else nullcontext():
            # Not `pipe.send`, with which tensors stay in memory that goes with this process.
            pipe.send_bytes(pickle.dumps((True, function(World.current(), *arguments))))
    except Exception:
        pipe.send_bytes(pickle.dumps((False, traceback.format_exc())))
        raise
