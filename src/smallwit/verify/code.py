"""The code judge: programs are run where they can do no harm, and the verdict is made where they cannot reach.

Plain cases, `(arguments, expected)`: the candidate's process gets the arguments of all cases and returns its results
in a canonical encoding; the judge, here, compares bytes. Published tests run in a second process, the tester, which
calls the candidate's through stand-ins and gets plain data back (`sandbox.tester`). Neither the tests nor an
expected value is ever in a process that runs the candidate's code, or in one that it was forked from.

Each program gets a process of its own, used once, behind the layers of `sandbox.isolation`. CPU time decides what is
over the limit, so that a busy machine changes no verdict; wall time is a backstop of twice that plus two seconds.
"""

import hashlib
import logging
import os
import re
import signal
import socket
import time
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from smallwit.device import cores
from smallwit.errors import UserError
from smallwit.verify import consent
from smallwit.verify.ordered_map import CachedTask, LRUCache, ordered_map
from smallwit.verify.sandbox.candidate import LIMIT, READY, REQUEST_BYTES, VALUE
from smallwit.verify.sandbox.codec import CodecError, TooLargeError, decode, encode, receive_frame, send_frame
from smallwit.verify.sandbox.extract import MAX_CHARACTERS
from smallwit.verify.sandbox.pool import SandboxPool, SandboxWorker, ServerLostError
from smallwit.verify.verdict import Verdict
from smallwit.verify.worker_pool import SharedPool

CPU_SECONDS = 10.0
"""CPU time of one program, by default. Wall time is limited to twice that plus two seconds."""

_LOG = logging.getLogger(__name__)
_REMEMBERED = 4096
_ANSWER_BYTES = 8 * MAX_CHARACTERS
_TESTER_SECONDS = 10.0  # CPU time of the tests themselves, beside the program's
_KILLED = (signal.SIGKILL, signal.SIGXCPU, signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT)
_CONSENT = f"{consent.OPTION}, or {consent.VARIABLE}=1 in the environment"
_NUMPY = re.compile(r"\bnumpy\b")  # in whatever form of import


@dataclass(frozen=True)
class CodeJob:
    """One response to judge.

    `prompt` is what the response may continue (HumanEval's), or empty; `response` a model's whole text. `cases` are
    (arguments, expected) pairs of plain data, compared type by type (1 is not True, nor 1.0; a NaN equals a NaN).
    `tests` is a source that defines `check(candidate)`, or assert lines; `setup` runs before them. A job has cases or
    tests or both, and passes if all agree.
    """

    prompt: str
    entry_point: str
    response: str
    tests: str | Sequence[str] = ()
    cases: Sequence[tuple[tuple[Any, ...], Any]] = ()
    setup: str = ""


@dataclass(frozen=True)
class _Order:
    """A job as the workers need it: arguments and expected results encoded."""

    job: CodeJob
    cases: list[bytes]
    expected: bytes
    cpu_seconds: float
    isolation: str

    def key(self) -> bytes:
        job = self.job
        tests = job.tests if isinstance(job.tests, str) else list(job.tests)
        parts = (job.prompt, job.entry_point, job.response, tests, job.setup, self.cases, self.expected)
        return hashlib.sha256(encode((parts, self.cpu_seconds), REQUEST_BYTES)).digest()


@dataclass(frozen=True)
class _Run:
    """What came of one run: a reason, and the program as it was read (its text, in the declared format or not)."""

    reason: str
    program: tuple[str, bool] | None = None


def judge_code(
    jobs: Sequence[CodeJob],
    *,
    cpu_seconds: float = CPU_SECONDS,
    workers: int | None = None,
    isolation: str | None = None,
) -> list[Verdict]:
    """Return the verdicts on `jobs`, in order. Identical jobs are judged once.

    A score is 1.0 if every case and test agrees, else 0.0; `strict` is the score if the response is in the declared
    format (`sandbox.extract`), else 0.0. A program over a limit (CPU seconds, memory, size of its output) has 0.0
    and the reason `limit`; where our own machinery fails twice, scores are `None` and the reason is `infrastructure`.
    `workers` is the number of programs at a time, the machine's cores by default. The worker processes are kept for
    the next call. `isolation` is the least that must surround a program (`verify.consent`). Raises `UserError` for a
    job that cannot be judged, before any is, and where the machine offers less isolation.
    """
    level = consent.needed_level(isolation)
    return list(_judged([_order(job, cpu_seconds, level) for job in jobs], cpu_seconds, workers))


def judge_stream(
    jobs: Iterable[CodeJob],
    *,
    cpu_seconds: float = CPU_SECONDS,
    workers: int | None = None,
    isolation: str | None = None,
) -> Generator[Verdict, None, None]:
    """Yield the verdicts of `judge_code` for a stream of jobs, each as soon as those before it are there.

    Raises `UserError` at a job that cannot be judged; then and when the iterator is closed early, all programs
    that run are ended.
    """
    level = consent.needed_level(isolation)
    return _judged((_order(job, cpu_seconds, level) for job in jobs), cpu_seconds, workers)


# A failure of our own machinery is not cached.
_verdicts: LRUCache[Verdict] = LRUCache(_REMEMBERED, lambda verdict: verdict.score is not None)
POOL = SharedPool(SandboxPool)


def _judged(orders: Iterable["_Order"], cpu_seconds: float, workers: int | None) -> Generator[Verdict, None, None]:
    if cpu_seconds <= 0:
        raise UserError(f"a program cannot have cpu_seconds {cpu_seconds}; give a positive number")
    works = (CachedTask(order.key(), partial(_judge_in_pool, order), _same) for order in orders)
    return ordered_map(works, workers or cores(), _verdicts, POOL.close)


def _same(verdict: Verdict) -> Verdict:
    return verdict


def _judge_in_pool(order: "_Order") -> Verdict:
    start = time.perf_counter()
    with POOL.get().lend() as worker:
        verdict = _judge(worker, order)
    return replace(verdict, seconds=time.perf_counter() - start)


def close() -> None:
    """End the worker processes; the next job starts new ones."""
    POOL.close()


def isolation_level() -> str:
    """Return the isolation level of candidates on this machine: one of `sandbox.isolation.LEVELS`, the weakest first.

    Starts the first worker on the first call. Raises `ServerLostError` if it does not start.
    """
    with POOL.get().lend() as worker:
        return worker.server("candidate").level


def objection(what: str, needed: str | None, accept: str = consent.OPTION) -> str | None:
    """Return why `what` may not run programs on this machine, or `None` if it may.

    It may where it runs none (`needed` is `None`), where their isolation is enough, or where the user has accepted less
    (`accept` says how). Starts a worker to find out.
    """
    if needed is None or consent.is_allowed():
        return None
    return consent.objection(what, isolation_level(), needed, accept)


def _order(job: CodeJob, cpu_seconds: float, isolation: str) -> _Order:
    if not job.cases and not job.tests:
        raise UserError(f"code job {job.entry_point!r}: it has neither tests nor cases; give one of them")
    cases, expected = [], []
    for index, (arguments, result) in enumerate(job.cases):
        try:
            cases.append(encode(tuple(arguments)))
            expected.append(encode(result, canonical=True))
        except CodecError as error:
            raise UserError(f"code job {job.entry_point!r}, case {index}: {error}; use `tests` for it") from error
    return _Order(job, cases, VALUE + encode(expected, REQUEST_BYTES), cpu_seconds, isolation)


def _judge(worker: SandboxWorker, order: _Order) -> Verdict:
    """Return the verdict on one job. A failure of our own machinery is tried once more on fresh servers."""
    if len(order.job.response) > MAX_CHARACTERS:
        return Verdict(0.0, 0.0, None, "limit")
    run = _Run("infrastructure")
    for _ in range(2):
        try:
            run = _judge_once(worker, order)
        except ServerLostError as error:
            _LOG.warning("the code judge lost a worker and starts it again: %s", error)
            run = _Run("infrastructure")
            worker.restart()
        if run.reason != "infrastructure":
            break
    answer, strict = run.program or (None, False)
    if run.reason == "infrastructure":
        return Verdict(None, None, answer, run.reason)
    score = 1.0 if run.reason == "correct" else 0.0
    return Verdict(score, score if strict else 0.0, answer, run.reason, strict)


def _judge_once(worker: SandboxWorker, order: _Order) -> _Run:
    offered = worker.server("candidate").level
    if refused := consent.objection("the code judge", offered, order.isolation, f"a task's isolation, {_CONSENT}"):
        raise UserError(refused)
    run = _Run("correct")
    if order.cases:
        run = _run_cases(worker, order)
    if order.job.tests and run.reason == "correct":
        run = _run_tests(worker, order)
    return run


def _run_cases(worker: SandboxWorker, order: _Order) -> _Run:
    candidate = worker.server("candidate")
    deadline = time.monotonic() + 2 * order.cpu_seconds + 2
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            candidate.start([theirs], order.cpu_seconds)
        run = _ask_candidate(ours, order, deadline)
        status, cpu_seconds = candidate.stop()
    return _settle(run, status, cpu_seconds, order.cpu_seconds)


def _ask_candidate(connection: socket.socket, order: _Order, deadline: float) -> _Run:
    job = order.job
    try:
        if receive_frame(connection, 16, deadline) != READY:
            return _Run("infrastructure")
    except (OSError, EOFError):
        return _Run("infrastructure")
    program = None
    try:
        request = encode((job.prompt, job.entry_point, job.response, order.cases), REQUEST_BYTES)
        send_frame(connection, request, deadline)
        # Nothing of the response has run yet: this frame is our own code's.
        program = decode(receive_frame(connection, _ANSWER_BYTES, deadline))
        if program is None:
            return _Run("no-answer")
        # From here on the other side may say what it likes.
        outcome = receive_frame(connection, len(order.expected), deadline)
    except TooLargeError:
        return _Run("wrong", program)
    except TimeoutError:
        return _Run("limit", program)
    except (OSError, EOFError):
        return _Run("ended", program)
    if outcome == order.expected:
        return _Run("correct", program)
    return _Run("limit" if outcome == LIMIT else "wrong", program)


def _run_tests(worker: SandboxWorker, order: _Order) -> _Run:
    candidate, tester = worker.server("candidate"), worker.server("tester")
    deadline = time.monotonic() + 2 * order.cpu_seconds + 2
    sources = (order.job.setup, *([order.job.tests] if isinstance(order.job.tests, str) else order.job.tests))
    numpy = any(_NUMPY.search(source) for source in (order.job.prompt, *sources))
    ours, theirs = socket.socketpair()
    link, far_link = socket.socketpair()
    with ours:
        with theirs, link, far_link:
            candidate.start([far_link], order.cpu_seconds)
            tester.start([theirs, link], order.cpu_seconds + _TESTER_SECONDS, numpy)
        run = _ask_tester(ours, order, deadline)
        status, cpu_seconds = candidate.stop()
        tester_status, _ = tester.stop()
    if run.reason == "lost":
        # The tests run our data on what the candidate returned: only that can take them over their own limits.
        run = _Run("limit" if _signal(tester_status) in _KILLED else "infrastructure", run.program)
    return _settle(run, status, cpu_seconds, order.cpu_seconds)


def _ask_tester(connection: socket.socket, order: _Order, deadline: float) -> _Run:
    job = order.job
    tests = job.tests if isinstance(job.tests, str) else list(job.tests)
    program = None
    try:
        if receive_frame(connection, 16, deadline) != READY:
            return _Run("infrastructure")
        request = encode((job.prompt, job.entry_point, job.response, tests, job.setup), REQUEST_BYTES)
        send_frame(connection, request, deadline)
        program = decode(receive_frame(connection, _ANSWER_BYTES, deadline))
        return _Run(receive_frame(connection, 64, deadline).decode(), program)
    except TimeoutError:
        return _Run("limit", program)
    except (OSError, EOFError):
        return _Run("lost", program)


def _signal(status: int) -> int:
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def _settle(run: _Run, status: int, cpu_seconds: float, limit: float) -> _Run:
    """Return the run's reason in the light of how the candidate ended.

    Before our own SIGKILL only the kernel sends one: for CPU time, or for the machine's memory.
    """
    if run.reason != "infrastructure" and cpu_seconds > limit:
        return _Run("limit", run.program)
    if run.reason == "ended":
        return _Run("limit" if _signal(status) in _KILLED else "wrong", run.program)
    return run
