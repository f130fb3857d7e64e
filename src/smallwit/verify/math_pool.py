"""Processes that compare formulas and can be killed, whatever a formula makes them do.

One pool a process: it starts at the first question, grows with the work, ends with the process, and a forked child
makes its own. The workers are plain subprocesses that speak JSON lines. `multiprocessing` (and with it pebble) would
import the caller's main module again in every worker, and refuses to start one from a daemonic process such as a data
loader's.
"""

import atexit
import json
import logging
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CPU_SECONDS = 3.0
"""CPU time of one comparison. It counts work, so a busy machine changes no verdict."""

WALL_SECONDS = 60.0
"""Wall time after which a worker that has CPU time left is given up: the machine's failure, not the answer's."""

START_SECONDS = 120.0
REQUESTS_A_WORKER = 2000
"""A worker is replaced after so many comparisons: sympy's caches grow."""

_SCRIPT = Path(__file__).with_name("math_worker.py")
_LIMIT_SIGNALS = {-signal.SIGXCPU, -signal.SIGABRT, -signal.SIGSEGV, -signal.SIGBUS, -signal.SIGFPE}
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Comparison:
    """`equal` is `None` when nothing can be said; `reason` then is `limit` or `infrastructure`."""

    equal: bool | None
    reason: str = ""


class WorkerLost(Exception):
    """The worker gave no answer: `reason` is `limit` if the request did it (CPU, memory, a crash), or `infrastructure`.

    `certain` says that another try can only end in the same way.
    """

    def __init__(self, reason: str, detail: str, certain: bool = False) -> None:
        super().__init__(detail)
        self.reason = reason
        self.certain = certain


class Worker:
    """One subprocess. Raises `WorkerLost` when it does not start or gives no answer; it is dead then."""

    def __init__(self) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-P", str(_SCRIPT)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                bufsize=0,
                env=environment,
            )
        except OSError as error:
            raise WorkerLost("infrastructure", f"cannot start a process: {error}") from error
        self.requests = 0
        self._pending = b""
        started = self._receive(time.monotonic() + START_SECONDS)
        if "failed" in started:
            self.kill()
            raise WorkerLost("infrastructure", f"Math-Verify does not start: {started['failed']}")

    def compare(self, gold: str, answer: str) -> bool:
        """Whether the two formulas are equal."""
        self.requests += 1
        request = json.dumps({"gold": gold, "answer": answer, "cpu_seconds": CPU_SECONDS}).encode() + b"\n"
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(request)
        except OSError as error:
            self.kill()
            raise WorkerLost("infrastructure", f"worker is gone: {error}") from error
        reply = self._receive(time.monotonic() + WALL_SECONDS)
        if "limit" in reply:
            self.kill()
            # Memory may have been used up by the requests before this one; a fresh worker tells.
            raise WorkerLost("limit", reply["limit"], certain=self.requests == 1)
        return bool(reply["equal"])

    def _receive(self, deadline: float) -> dict[str, Any]:
        assert self.process.stdout is not None
        descriptor = self.process.stdout.fileno()
        poll = select.poll()
        poll.register(descriptor, select.POLLIN | select.POLLHUP)
        while b"\n" not in self._pending:
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                self.kill()
                raise WorkerLost("infrastructure", "no answer within the wall time")
            received = os.read(descriptor, 65536)
            if not received:
                status = self.process.wait()
                self.kill()
                reason = "limit" if status in _LIMIT_SIGNALS else "infrastructure"
                certain = reason == "limit" and (status == -signal.SIGXCPU or self.requests == 1)
                raise WorkerLost(reason, f"worker ended with status {status}", certain)
            self._pending += received
        line, self._pending = self._pending.split(b"\n", 1)
        message: dict[str, Any] = json.loads(line)
        return message

    def kill(self) -> None:
        """End the process now and release what it holds."""
        self.process.kill()
        self.process.wait()
        self.forget()

    def forget(self) -> None:
        """Close this side of the pipes."""
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


class Pool:
    """Workers that are started as the work asks for them, at most one for each core."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._idle: list[Worker] = []
        self._all: list[Worker] = []
        self._lock = threading.Lock()

    def compare(self, pairs: Sequence[tuple[str, str]]) -> list[Comparison]:
        """The comparisons of (gold, answer) pairs, in order. Safe to call from several threads."""
        # A worker takes a second to start: a second one pays for itself from some dozens of pairs on.
        threads = min(self.workers, 1 + len(pairs) // 32)
        if threads == 1:
            return [self._compare(*pair) for pair in pairs]
        with ThreadPoolExecutor(threads) as executor:
            return list(executor.map(lambda pair: self._compare(*pair), pairs))

    def close(self) -> None:
        """Kill all workers."""
        with self._lock:
            workers, self._all, self._idle = self._all, [], []
        for worker in workers:
            worker.kill()

    def forget(self) -> None:
        """Let go of workers that belong to another process (after a fork)."""
        for worker in self._all:
            worker.forget()

    def _compare(self, gold: str, answer: str) -> Comparison:
        reason = ""
        for attempt in (1, 2):
            try:
                worker = self._take()
            except WorkerLost as lost:
                reason = lost.reason
                _log.warning("math grading, attempt %d: %s", attempt, lost)
                continue
            try:
                verdict = worker.compare(gold, answer)
            except WorkerLost as lost:
                self._drop(worker)
                reason = lost.reason
                _log.info("math grading, attempt %d: %s", attempt, lost)
                if lost.certain:
                    break
            else:
                self._give_back(worker)
                return Comparison(verdict)
        return Comparison(None, reason)

    def _take(self) -> Worker:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        worker = Worker()
        with self._lock:
            self._all.append(worker)
        return worker

    def _give_back(self, worker: Worker) -> None:
        if worker.requests >= REQUESTS_A_WORKER:
            self._drop(worker)
            worker.kill()
            return
        with self._lock:
            self._idle.append(worker)

    def _drop(self, worker: Worker) -> None:
        with self._lock:
            if worker in self._all:
                self._all.remove(worker)


_pool: Pool | None = None
_pool_lock = threading.Lock()


def compare_all(pairs: Sequence[tuple[str, str]]) -> list[Comparison]:
    """Whether the formulas of each (gold, answer) pair are equal, by this process's pool."""
    global _pool
    if not pairs:
        return []
    with _pool_lock:
        if _pool is None:
            _pool = Pool(max(1, min(4, _cores())))
        pool = _pool
    return pool.compare(pairs)


def close() -> None:
    """End the pool's processes; the next question starts new ones."""
    global _pool
    with _pool_lock:
        pool, _pool = _pool, None
    if pool is not None:
        pool.close()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _after_fork() -> None:
    """In a forked child: the workers are the parent's, and locks may have been held by threads that are not here."""
    global _pool, _pool_lock
    _pool_lock = threading.Lock()
    pool, _pool = _pool, None
    if pool is not None:
        pool.forget()


atexit.register(close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
