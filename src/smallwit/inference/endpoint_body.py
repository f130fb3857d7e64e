"""What servers send: bodies of replies and server-sent events, within bounds, and what went to and came from a host."""

import zlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass

import httpx2

MOST_BYTES = 64 << 20
"""Of one reply: a server that never stops sending is cut off here."""
_LONGEST_LINE = 1 << 20
_GZIP = 31  # zlib's name for it


class Broken(Exception):
    """A reply that makes no sense. Raised by those who read replies; the request is tried again."""


@dataclass
class Traffic:
    """What went to and came from one host: bytes of requests and of replies, headers included, TLS not."""

    requests: int = 0
    failed: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0


async def read_events(response: httpx2.Response, traffic: Traffic) -> AsyncGenerator[bytes, None]:
    """Yield the data of server-sent events, a line each as OpenAI sends them, up to the last, `[DONE]`."""
    traffic.bytes_received += headers_size(response.headers)
    begun, size = b"", 0
    async for piece in response.aiter_raw():
        traffic.bytes_received += len(piece)
        size += len(piece)
        if size > MOST_BYTES:
            raise Broken(f"a reply of more than {MOST_BYTES >> 20} MiB")
        *lines, begun = (begun + piece).split(b"\n")
        if len(begun) > _LONGEST_LINE:
            raise Broken(f"an event of more than {_LONGEST_LINE >> 20} MiB")
        for line in lines:
            name, _, data = line.partition(b":")
            if name == b"data" and data.strip() == b"[DONE]":
                return
            if name == b"data":
                yield data


async def read_body(response: httpx2.Response, traffic: Traffic) -> bytes:
    """Return the body of a reply. Raises `Broken` for one that is too long, or not compressed as was asked for."""
    traffic.bytes_received += headers_size(response.headers)
    coding = response.headers.get("content-encoding", "identity").strip().lower()
    if coding not in ("identity", "gzip"):
        raise Broken("a reply that is compressed in a way that was not asked for")
    # Not by the client's own decoders: they make of a few bytes as many as these say.
    inflater = zlib.decompressobj(_GZIP) if coding == "gzip" else None
    body = bytearray()
    async for piece in response.aiter_raw():
        traffic.bytes_received += len(piece)
        try:
            body += piece if inflater is None else inflater.decompress(piece, MOST_BYTES + 1 - len(body))
        except zlib.error as error:
            raise Broken("a reply that is not compressed as it says") from error
        if len(body) > MOST_BYTES:
            raise Broken(f"a reply of more than {MOST_BYTES >> 20} MiB")
    if inflater is not None and not inflater.eof:
        raise Broken("a compressed reply without its end")
    return bytes(body)


def headers_size(headers: httpx2.Headers) -> int:
    """Return the bytes of headers on the wire, about."""
    return sum(len(name) + len(value) + 4 for name, value in headers.raw)
