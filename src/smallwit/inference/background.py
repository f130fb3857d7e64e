"""Asynchronous work for callers that are not: an event loop in a thread of its own."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import Future
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")


def in_background(work: Callable[[Callable[[T], None]], Coroutine[Any, Any, None]]) -> Generator[T, None, None]:
    """What `work` hands to the function that it is given, in the thread of the caller, as it comes.

    A caller that stops early (`close`, also by Ctrl-C) cancels the work and waits until it has ended. Raises what the
    work raises, after all that it handed over before.
    """
    events: SimpleQueue[tuple[str, Any]] = SimpleQueue()
    running: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]] = Future()

    async def main() -> None:
        task = asyncio.current_task()
        assert task is not None
        running.set_result((asyncio.get_running_loop(), task))
        await work(lambda item: events.put(("item", item)))

    def thread() -> None:
        try:
            asyncio.run(main())
            events.put(("end", None))
        except BaseException as error:  # noqa: BLE001  it is raised again in the caller's thread
            events.put(("error", error))

    worker = threading.Thread(target=thread, daemon=True)
    worker.start()
    loop, task = running.result()
    try:
        while True:
            kind, value = events.get()
            if kind == "end":
                return
            if kind == "error":
                raise value
            yield value
    finally:
        # The loop may have closed in the meantime: then there is nothing to cancel.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(task.cancel)
        worker.join()
