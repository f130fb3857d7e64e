"""What an engine in another process and its client say to each other: JSON, and the bytes of tensors behind it.

Nothing is unpickled: `send_bytes` and `recv_bytes` of a `Connection` give the bounds of messages, and no more.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor

from smallwit.inference.engine import Completion, Request, Sampling

Message = dict[str, Any]


def send(connection: Connection, message: Mapping[str, Any]) -> None:
    """Send a message."""
    connection.send_bytes(json.dumps(message).encode())


def receive(connection: Connection) -> Message:
    """Return the next message. Raises `EOFError` or `ConnectionError` if the other side is gone."""
    message: Message = json.loads(connection.recv_bytes())
    return message


def send_tensor(connection: Connection, name: str, tensor: Tensor) -> None:
    """Send the name, the shape and the bytes of a tensor."""
    held = tensor.cpu().contiguous()
    send(connection, {"name": name, "shape": list(held.shape)})
    connection.send_bytes(_bytes_of(held))


def receive_tensor(connection: Connection, into: Tensor) -> None:
    """Receive the bytes of a tensor into one on the CPU, of their number. Raises `ValueError` for fewer."""
    got = connection.recv_bytes_into(_bytes_of(into))
    if got != into.numel() * into.itemsize:
        raise ValueError(f"{got} bytes came for a tensor of {into.numel() * into.itemsize}")


def _bytes_of(tensor: Tensor) -> memoryview:
    held: Any = tensor.reshape(-1).view(torch.uint8).numpy()
    return memoryview(held)


def requests_message(requests: Sequence[Request]) -> Message:
    """Return the message that asks for completions; requests that are drawn alike share their `Sampling`."""
    places = {sampling: place for place, sampling in enumerate(dict.fromkeys(each.sampling for each in requests))}
    return {
        "do": "generate",
        "samplings": [asdict(sampling) for sampling in places],
        "requests": [[list(each.prompt), places[each.sampling], each.seed] for each in requests],
    }


def requests_of(message: Message) -> list[Request]:
    """Return the requests of such a message."""
    samplings = [Sampling(**_with_tuples(fields)) for fields in message["samplings"]]
    return [Request(prompt, samplings[place], seed) for prompt, place, seed in message["requests"]]


def _with_tuples(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}


def completion_of(fields: Mapping[str, Any]) -> Completion:
    """Return the completion of these fields."""
    top = fields["top_log_probs"]
    pairs = None if top is None else [[(token, value) for token, value in place] for place in top]
    return Completion(**{**fields, "top_log_probs": pairs})
