"""Work that threads do side by side, handed over in the order in which it was asked for."""

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
"""Items that are read ahead of the one that is waited for: as many may be held in memory."""


@dataclass(frozen=True, slots=True)
class Work(Generic[Value, Result]):
    """`finish(do())`. Of works with one key, `do` is called once while the others wait for what it returns."""

    key: Hashable
    do: Callable[[], Value]
    finish: Callable[[Value], Result]


class Memory(Generic[Value]):
    """The newest values by key, for as long as the process lives. Safe to use from threads and in forked children."""

    def __init__(self, size: int, lasting: Callable[[Value], bool]) -> None:
        self._size, self._lasting = size, lasting
        self._values: OrderedDict[Hashable, Value] = OrderedDict()
        self._lock = threading.Lock()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._unlock)

    def _unlock(self) -> None:
        """In a forked child the thread that held the lock is not there to release it."""
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Value | None:
        """The value, or `None` when it is not remembered."""
        with self._lock:
            return self._values.get(key)

    def put(self, key: Hashable, value: Value) -> None:
        """Remember a value, if it is one that would come out the same again."""
        if not self._lasting(value):
            return
        with self._lock:
            self._values[key] = value
            self._values.move_to_end(key)
            while len(self._values) > self._size:
                self._values.popitem(last=False)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._values.clear()


def in_order(
    items: Iterable[Result | Work[Any, Result]], threads: int, memory: Memory[Any], abandon: Callable[[], None]
) -> Generator[Result, None, None]:
    """The items, those that are `Work` done by `threads` threads, in order; no more than `AHEAD` are read ahead.

    When work raises, when the consumer stops early or on Ctrl-C, nothing new is begun and `abandon` is called, which
    should end what is running.
    """
    executor = ThreadPoolExecutor(threads)
    running: dict[Hashable, Future[Any]] = {}
    # Of each item what is waited for, if anything, and how its result is then had.
    waiting: deque[tuple[Future[Any] | None, Callable[[], Result]]] = deque()

    def begin(item: Result | Work[Any, Result]) -> tuple[Future[Any] | None, Callable[[], Result]]:
        if not isinstance(item, Work):
            return None, lambda: item
        value = memory.get(item.key)
        if value is not None:
            return None, lambda: item.finish(value)
        if item.key not in running:
            running[item.key] = executor.submit(item.do)
        future = running[item.key]
        return future, lambda: end(item, future)

    def end(work: Work[Any, Result], future: Future[Any]) -> Result:
        value = future.result()
        memory.put(work.key, value)
        running.pop(work.key, None)
        return work.finish(value)

    with ExitStack() as unfinished:
        # Where work raised, on Ctrl-C, and where the consumer stopped early: nothing may go on running behind them.
        unfinished.callback(abandon)
        unfinished.callback(executor.shutdown, wait=False, cancel_futures=True)
        for item in items:
            waiting.append(begin(item))
            while waiting and (len(waiting) > AHEAD or waiting[0][0] is None or waiting[0][0].done()):
                yield waiting.popleft()[1]()
        while waiting:
            yield waiting.popleft()[1]()
        unfinished.pop_all()
    executor.shutdown()
