"""Short words for tests that ask an endpoint."""

import socket
from dataclasses import replace

from endpoint_server import (
    FaultServer,
)
from smallwit.inference.endpoint import (
    EndpointGenerator,
)
from smallwit.inference.endpoint_client import Endpoint
from smallwit.inference.generator import Decoding, Reply
from smallwit.tasks.prompt import Prompt

GREEDY = Decoding(temperature=0.0, max_new_tokens=16)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def chat(content: str) -> Prompt:
    return Prompt(messages=({"role": "user", "content": content},))


def endpoint(*servers: FaultServer, **changes: float) -> Endpoint:
    """Fast and impatient."""
    return impatient(tuple(server.url for server in servers), **changes)


def impatient(urls: tuple[str, ...], **changes: float) -> Endpoint:
    fast = Endpoint(urls, "tiny", backoff=0.01, connect=1.0, read=0.4, total=0.8, cooldown=0.05, patience=0.5)
    return replace(fast, **changes)


def asks(
    generator: EndpointGenerator, prompts: list[Prompt], decoding: Decoding = GREEDY, seeds: list[int] | None = None
) -> list[Reply]:
    return generator.reply(prompts, decoding, seeds or list(range(len(prompts))))


def said_by(server: FaultServer, **changes: float) -> str:
    """The whole text of an answer to one question."""
    return asks(EndpointGenerator(endpoint(server, **changes)), [chat("one two")])[0].text
