"""Pools of workers that can be killed: lending, death, and what happens at a fork."""

import atexit
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Generic, Protocol, TypeVar


class KillableWorker(Protocol):
    """A worker: one process or several, used by one thread at a time."""

    def usable(self) -> bool:
        """Return whether the worker can take another request."""

    def interrupt(self) -> None:
        """End the request that runs: a thread that waits for the worker wakes up with an error."""

    def close(self) -> None:
        """End the processes and release what they hold. It may be called twice."""

    def forget(self) -> None:
        """Release this side only: in a forked child the processes belong to the parent."""


Worker = TypeVar("Worker", bound=KillableWorker)
Pool = TypeVar("Pool", bound="WorkerPool[Any]")


class WorkerPool(Generic[Worker]):
    """Workers, lent to one thread each; as many as were ever needed at the same time."""

    closes_lent_workers: ClassVar[bool] = False
    """Whether `close` waits for the end of lent workers, too. Otherwise their threads close them."""

    def __init__(self, start: Callable[[], Worker], closed: Callable[[], Exception]) -> None:
        """`start` makes a worker, `closed` the exception of a pool that is closed."""
        self.workers: list[Worker] = []
        self.closed = False
        self._start, self._closed_error = start, closed
        self._idle: list[Worker] = []
        self._lock = threading.Lock()

    @contextmanager
    def lend(self) -> Iterator[Worker]:
        """Lend a worker to the calling thread. After an exception the worker is closed and not lent again.

        Raises the exception of a closed pool, and what the start of a worker raises.
        """
        worker = self._take()
        try:
            yield worker
        except BaseException:
            # It may be in the middle of a request, whose answer nobody would expect.
            worker.close()
            raise
        self._give_back(worker)

    def close(self) -> None:
        """End all workers. Threads that wait for one wake up."""
        with self._lock:
            self.closed = True
            workers, idle, self.workers, self._idle = self.workers, self._idle, [], []
        for worker in workers:
            worker.interrupt()
        for worker in workers:
            if self.closes_lent_workers or worker in idle:
                worker.close()

    def forget(self) -> None:
        """Let go of workers that belong to another process (after a fork)."""
        for worker in self.workers:
            worker.forget()

    def _take(self) -> Worker:
        with self._lock:
            if self.closed:
                raise self._closed_error()
            if self._idle:
                return self._idle.pop()
        worker = self._start()
        with self._lock:
            self.workers = [*(other for other in self.workers if other.usable()), worker]
            closed = self.closed
        if closed:
            worker.close()
            raise self._closed_error()
        return worker

    def _give_back(self, worker: Worker) -> None:
        if not worker.usable():
            worker.close()
            return
        with self._lock:
            self._idle.append(worker)


class SharedPool(Generic[Pool]):
    """The one pool of this process: made when it is first needed, closed at exit. A forked child makes its own."""

    def __init__(self, make: Callable[[], Pool]) -> None:
        self.pool: Pool | None = None
        self._make = make
        self._lock = threading.Lock()
        atexit.register(self.close)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._after_fork)

    def get(self) -> Pool:
        """Return the pool."""
        with self._lock:
            if self.pool is None:
                self.pool = self._make()
            return self.pool

    def close(self) -> None:
        """Close the pool; the next `get` makes a new one."""
        with self._lock:
            pool, self.pool = self.pool, None
        if pool is not None:
            pool.close()

    def _after_fork(self) -> None:
        """Let go of the parent's workers in a forked child, and of a lock that a missing thread may hold."""
        self._lock = threading.Lock()
        pool, self.pool = self.pool, None
        if pool is not None:
            pool.forget()
