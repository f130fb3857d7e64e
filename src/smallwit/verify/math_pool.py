"""Processes that compare formulas and can be killed, whatever a formula makes them do.

The workers are plain subprocesses that speak JSON lines. `multiprocessing` (and with it pebble) would import the
caller's main module again in every worker, and refuses to start one from a daemonic process such as a data loader's.
"""

import json
import logging
import os
import select
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smallwit.verify.worker_pool import SharedPool, WorkerPool

CPU_SECONDS = 3.0
"""CPU time for the formulas of one answer, by default. It counts work, so a busy machine changes no verdict."""

WALL_SECONDS = 60.0
"""Wall time (or four times the CPU time, if that is more) after which a worker that has CPU time left is given up: the
machine's failure, not the answer's."""

START_SECONDS = 120.0
REQUESTS_A_WORKER = 2000
"""A worker is replaced after so many comparisons: a library's caches may grow."""

_SCRIPT = Path(__file__).with_name("math_worker.py")
_LIMIT_SIGNALS = {-signal.SIGPROF, -signal.SIGABRT, -signal.SIGSEGV, -signal.SIGBUS, -signal.SIGFPE}
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FormulaComparison:
    """`equal` is `None` when nothing can be said; `reason` then is `limit` or `infrastructure`."""

    equal: bool | None
    reason: str = ""
    cpu_seconds: float = 0.0


class WorkerLost(Exception):
    """The worker gave no answer: `reason` is `limit` if the request did it (CPU, memory, a crash), or `infrastructure`.

    `certain` says that another try can only end in the same way.
    """

    def __init__(self, reason: str, detail: str, certain: bool = False) -> None:
        super().__init__(detail)
        self.reason = reason
        self.certain = certain


class FormulaWorker:
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
            self.close()
            raise WorkerLost("infrastructure", f"the comparison of formulas does not start: {started['failed']}")

    def compare(self, gold: str, answer: str, cpu_seconds: float) -> FormulaComparison:
        """Return whether the two formulas are equal."""
        self.requests += 1
        request = json.dumps({"gold": gold, "answer": answer, "cpu_seconds": cpu_seconds}).encode() + b"\n"
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(request)
        except OSError as error:
            self.close()
            raise WorkerLost("infrastructure", f"worker is gone: {error}") from error
        reply = self._receive(time.monotonic() + max(WALL_SECONDS, 4 * cpu_seconds))
        if "limit" in reply:
            self.close()
            # Memory may have been used up by the requests before this one; a fresh worker tells.
            raise WorkerLost("limit", reply["limit"], certain=self.requests == 1)
        return FormulaComparison(bool(reply["equal"]), cpu_seconds=reply["cpu_seconds"])

    def _receive(self, deadline: float) -> dict[str, Any]:
        assert self.process.stdout is not None
        descriptor = self.process.stdout.fileno()
        poll = select.poll()
        poll.register(descriptor, select.POLLIN | select.POLLHUP)
        while b"\n" not in self._pending:
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                self.close()
                raise WorkerLost("infrastructure", "no answer within the wall time")
            received = os.read(descriptor, 65536)
            if not received:
                status = self.process.wait()
                self.close()
                reason = "limit" if status in _LIMIT_SIGNALS else "infrastructure"
                certain = reason == "limit" and (status == -signal.SIGPROF or self.requests == 1)
                raise WorkerLost(reason, f"worker ended with status {status}", certain)
            self._pending += received
        line, self._pending = self._pending.split(b"\n", 1)
        message: dict[str, Any] = json.loads(line)
        return message

    def usable(self) -> bool:
        """Return whether the process lives and has answered few requests."""
        return self.process.returncode is None and self.requests < REQUESTS_A_WORKER

    def interrupt(self) -> None:
        """Kill the process; a thread that listens to it closes the pipes."""
        self.process.kill()

    def close(self) -> None:
        """Kill the process and close the pipes."""
        self.process.kill()
        self.process.wait()
        self.forget()

    def forget(self) -> None:
        """Close this side of the pipes."""
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


class FormulaPool(WorkerPool[FormulaWorker]):
    """Workers that compare formulas."""

    def __init__(self) -> None:
        super().__init__(FormulaWorker, lambda: WorkerLost("infrastructure", "the pool is closed", certain=True))

    def compare(self, gold: str, answer: str, cpu_seconds: float) -> FormulaComparison:
        """Return whether the formulas are equal. Safe to call from several threads."""
        reason = ""
        for attempt in (1, 2):
            # A fresh worker is asked again whether it was the memory of earlier requests; not for as long.
            seconds = cpu_seconds if reason != "limit" else cpu_seconds / 4
            try:
                with self.lend() as worker:
                    return worker.compare(gold, answer, seconds)
            except WorkerLost as lost:
                reason = lost.reason
                level = logging.WARNING if reason == "infrastructure" and not self.closed else logging.DEBUG
                _log.log(level, "math grading, attempt %d: %s", attempt, lost)
                if lost.certain:
                    break
        return FormulaComparison(None, reason)


POOL = SharedPool(FormulaPool)


def compare(gold: str, answer: str, cpu_seconds: float) -> FormulaComparison:
    """Return whether two formulas are equal, by the pool of this process."""
    return POOL.get().compare(gold, answer, cpu_seconds)


def close() -> None:
    """End the processes of the pool; the next comparison starts new ones."""
    POOL.close()
