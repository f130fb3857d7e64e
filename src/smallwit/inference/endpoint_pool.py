"""Many requests at once, a few of them under way, each result kept as it comes."""

import asyncio
from collections.abc import Awaitable, Callable, Generator, Mapping
from contextlib import closing
from typing import Any, TypeVar

from smallwit.inference.background import in_background
from smallwit.inference.endpoint_client import Client, EndpointError, RequestFailed
from smallwit.storage.journal import Journal

T = TypeVar("T")
Result = dict[str, Any] | RequestFailed
_HOPELESS = 8
"""Requests that all fail, with none that succeeds, before the others are not even tried."""


def results(
    client: Client,
    requests: Mapping[str, T],
    ask: Callable[[T], Awaitable[dict[str, Any]]],
    journal: Journal | None,
    prepare: Callable[[], Awaitable[None]],
) -> Generator[tuple[str, Result], None, None]:
    """The result of each request by its key, or why it has none: those of the journal first, the others as they come.

    `ask` makes a result that can be written as JSON, and raises `RequestFailed` for one request; `prepare` comes before
    the first. Closing this cancels what is under way. Raises what both raise, and `EndpointError` when the first
    requests all fail.
    """
    known = dict.fromkeys(key for key in requests if journal is not None and key in journal)
    for key in known:
        assert journal is not None
        yield key, journal[key]
    waiting = iter([(key, request) for key, request in requests.items() if key not in known])
    if len(known) == len(requests):
        return
    failed = succeeded = 0

    async def work(hand: Callable[[tuple[str, Result]], None]) -> None:
        nonlocal failed, succeeded
        for key, request in waiting:
            try:
                result = await ask(request)
            except RequestFailed as error:
                failed += 1
                if failed >= _HOPELESS and not succeeded:
                    raise EndpointError(f"the first {failed} requests all failed, the last: {error}") from error
                hand((key, error))
                continue
            succeeded += 1
            if journal is not None:
                journal.add(key, result)
            hand((key, result))

    async def all_of_them(hand: Callable[[tuple[str, Result]], None]) -> None:
        async with client:
            await prepare()
            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(min(client.endpoint.concurrency, len(requests) - len(known))):
                        group.create_task(work(hand))
            except BaseExceptionGroup as errors:
                raise errors.exceptions[0] from None

    with closing(in_background(all_of_them)) as found:
        yield from found
