"""An ordered parallel map over threads, with a cache of results."""

import os
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Generator, Hashable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

Result = TypeVar("Result")
Value = TypeVar("Value")

AHEAD = 256
"""The most items that are read ahead of the next result; they are held in memory."""


@dataclass(frozen=True, slots=True)
class CachedTask(Generic[Value, Result]):
    """A task whose result is `finish(do())`. Tasks with the same key share one call of `do`."""

    key: Hashable
    do: Callable[[], Value]
    finish: Callable[[Value], Result]


class LRUCache(Generic[Value]):
    """A cache that keeps the newest values by key. Safe to use from threads and in forked children."""

    def __init__(self, size: int, cacheable: Callable[[Value], bool]) -> None:
        self._size, self._cacheable = size, cacheable
        self._values: OrderedDict[Hashable, Value] = OrderedDict()
        self._lock = threading.Lock()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._unlock)

    def _unlock(self) -> None:
        """Replace the lock in a forked child: the thread that may hold it is not there to release it."""
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Value | None:
        """Return the value, or `None` when it is not in the cache."""
        with self._lock:
            return self._values.get(key)

    def put(self, key: Hashable, value: Value) -> None:
        """Store a value, if it is cacheable: one that would come out the same again."""
        if not self._cacheable(value):
            return
        with self._lock:
            self._values[key] = value
            self._values.move_to_end(key)
            while len(self._values) > self._size:
                self._values.popitem(last=False)

    def clear(self) -> None:
        """Remove all values."""
        with self._lock:
            self._values.clear()


def ordered_map(
    items: Iterable[Result | CachedTask[Any, Result]], threads: int, cache: LRUCache[Any], abandon: Callable[[], None]
) -> Generator[Result, None, None]:
    """Yield the results of the items, in order. `threads` threads run the `CachedTask` items; other items are results.

    At most `AHEAD` items are read ahead. When a task raises, when the consumer stops early or on Ctrl-C, nothing new is
    started and `abandon` is called, which should end what is running.
    """
    executor = ThreadPoolExecutor(threads)
    running: dict[Hashable, Future[Any]] = {}
    # For each item its future, if it has one, and the function that then gives its result.
    waiting: deque[tuple[Future[Any] | None, Callable[[], Result]]] = deque()

    def start(item: Result | CachedTask[Any, Result]) -> tuple[Future[Any] | None, Callable[[], Result]]:
        if not isinstance(item, CachedTask):
            return None, lambda: item
        value = cache.get(item.key)
        if value is not None:
            return None, lambda: item.finish(value)
        if item.key not in running:
            running[item.key] = executor.submit(item.do)
        future = running[item.key]
        return future, lambda: finish(item, future)

    def finish(task: CachedTask[Any, Result], future: Future[Any]) -> Result:
        value = future.result()
        cache.put(task.key, value)
        running.pop(task.key, None)
        return task.finish(value)

    with ExitStack() as unfinished:
        # After an error, on Ctrl-C and when the consumer stops early, no task may go on running.
        unfinished.callback(abandon)
        unfinished.callback(executor.shutdown, wait=False, cancel_futures=True)
        for item in items:
            waiting.append(start(item))
            while waiting and (len(waiting) > AHEAD or waiting[0][0] is None or waiting[0][0].done()):
                yield waiting.popleft()[1]()
        while waiting:
            yield waiting.popleft()[1]()
        unfinished.pop_all()
    executor.shutdown()
