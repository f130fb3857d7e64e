"""The processes that compute: started from a fork server, listened to, stopped together, their memory watched."""

import os
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import forkserver, get_context, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import Any

import psutil

from smallwit.pipeline import worker
from smallwit.recipe.section import kinds_of, subclasses_of
from smallwit.recipe.stage import Stage
from smallwit.stages.job import Job

STOP_SECONDS = 30.0
LEAVE_SECONDS = 10.0
CAUSE_SECONDS = 5.0
"""How long it may take until it is known why a process that the others have lost has failed."""
FORK_SERVER_LOST = 255
"""The exit status that multiprocessing reports of a process whose fork server is gone; no stage ends with it."""

Message = tuple[Any, ...]


class Member:
    """One process of a job and the pipe that it reports through. Closing `lifeline` ends the process.

    multiprocessing hears of a process from the fork server alone, and takes it for ended where that is. Whether this
    one lives, and its end, are therefore a matter of its id, which psutil guards against being given to another.
    """

    def __init__(self, process: BaseProcess, pipe: Connection, lifeline: Connection) -> None:
        self.process, self.pipe, self.lifeline = process, pipe, lifeline
        try:
            self.itself: psutil.Process | None = psutil.Process(process.pid)
        except psutil.NoSuchProcess:
            self.itself = None

    def messages(self) -> Iterator[Message]:
        """What the process has said since the last look; ("ended", status) comes last when it is gone."""
        alive = self.process.is_alive()
        try:
            while self.pipe.poll():
                yield self.pipe.recv()
        except (EOFError, OSError):
            # A process that is killed while it speaks leaves half a message.
            alive = False
        if not alive:
            self.close()
            yield "ended", self.process.exitcode

    def is_alive(self) -> bool:
        """Whether the process runs, whatever has become of its fork server."""
        try:
            return self.itself is not None and self.itself.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    def terminate(self) -> None:
        """Ask the process to save and stop."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the process, and return when it can write no more."""
        self._signal(signal.SIGKILL)
        deadline = time.monotonic() + LEAVE_SECONDS
        while self.is_alive() and time.monotonic() < deadline:
            time.sleep(0.005)
        self.process.join()

    def close(self) -> None:
        """Let a process that has said its last word leave; it is not waited for long."""
        self.process.join(LEAVE_SECONDS)
        self.kill()
        self.pipe.close()
        self.lifeline.close()

    def _signal(self, number: int) -> None:
        if self.itself is not None:
            with suppress(psutil.NoSuchProcess):
                self.itself.send_signal(number)


class Running:
    """The processes of a job. The first speaks for all; of the others only failures are heard."""

    def __init__(self, name: str, members: Sequence[Member]) -> None:
        self.name, self.first = name, members[0]
        self.members = list(members)
        self.lost: tuple[float, str] | None = None

    def messages(self) -> Iterator[Message]:
        """What the job has said since the last look. When one process fails the others lose it: of their failures that
        one is heard, which can take until the next look."""
        for member in list(self.members):
            for message in member.messages():
                match message:
                    case "lost", str(text):
                        self.lost = self.lost or (time.monotonic(), text)
                        self._forget(member)
                        break
                    case "ended", 0 if member is not self.first:
                        self._forget(member)
                    case _:
                        yield message
        if self.lost is not None and (not self.members or time.monotonic() - self.lost[0] > CAUSE_SECONDS):
            yield "failed", "Failed", self.lost[1]

    def _forget(self, member: Member) -> None:
        member.kill()
        member.close()
        self.members.remove(member)

    def close(self) -> None:
        """Let processes that have done their work leave; they are not waited for long."""
        for member in self.members:
            member.close()

    def kill(self) -> None:
        """End all processes."""
        for member in self.members:
            member.kill()


class NotStarted(Exception):
    """A process could not be started; the message says why."""


def start(job: Job, name: str, context: BaseContext) -> Running:
    """Start the processes of a job. Several meet at a port of this machine's own, where the first listens.

    Raises `NotStarted` when the fork server is ended meanwhile, or the machine has no room for another process.
    """
    members: list[Member] = []
    try:
        if job.stage.process_count == 1:
            members.append(_start(job, name, context, 0, None))
            return Running(name, members)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            for rank, meeting in enumerate([listener, *[port] * (job.stage.process_count - 1)]):
                members.append(_start(job, name, context, rank, meeting))
        return Running(name, members)
    except (EOFError, OSError) as error:
        for member in members:
            member.kill()
        raise NotStarted(str(error) or "the fork server was ended") from error


def _start(job: Job, name: str, context: BaseContext, rank: int, meeting: socket.socket | int | None) -> Member:
    here, there = context.Pipe(duplex=False)
    lifeline_there, lifeline_here = context.Pipe(duplex=False)
    arguments = (job, there, lifeline_there, rank, meeting)
    process = context.Process(target=worker.main, args=arguments, name=name)  # type: ignore[attr-defined]
    with _deaf():
        process.start()
    there.close()
    lifeline_there.close()
    return Member(process, here, lifeline_here)


def wait_for_news(running: Sequence[Running], seconds: float) -> None:
    """Return when one of the processes says something or ends, or when the time is up."""
    members = [member for one in running for member in one.members]
    wait([member.pipe for member in members] + [member.process.sentinel for member in members], timeout=seconds)


def stop(running: Sequence[Running]) -> None:
    """Ask every job to save and stop; end those that do not in time, or at once on a second interrupt."""
    try:
        # The first of a job's processes saves and is gone; nobody else of them has anything to lose.
        for one in running:
            one.first.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        while any(one.first.is_alive() for one in running) and time.monotonic() < deadline:
            time.sleep(0.02)
            for one in running:
                for member in one.members:
                    _drain(member.pipe)
    finally:
        for one in running:
            one.kill()


def _drain(pipe: Connection) -> None:
    """Read what nobody wants to know any more, lest a full pipe keep a process from stopping."""
    try:
        while not pipe.closed and pipe.poll():
            pipe.recv()
    except (EOFError, OSError):
        return


def preloaded_modules() -> list[str]:
    """Return the modules that the fork server imports once for the processes of all stages."""
    kinds_of(Stage)  # imports the kinds
    return list(dict.fromkeys(module for stage in subclasses_of(Stage) for module in stage.preload))


def fork_server() -> BaseContext:
    """A fork server that has imported the heavy libraries once; fresh processes on macOS, where that is not safe."""
    if sys.platform == "darwin":
        return get_context("spawn")
    context = get_context("forkserver")
    context.set_forkserver_preload(preloaded_modules())
    # A process that has asked CUDA for its devices can fork none that uses them. Some libraries ask while they are
    # imported; with this torch asks the driver's management library (NVML) instead.
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    with _deaf():
        forkserver.ensure_running()
    return context


@contextmanager
def _deaf() -> Iterator[None]:
    """Within, a fork server may be started, the first or one in place of another that was ended.

    Ctrl-C reaches every process of the terminal. Whether the others stop is for this one to say, so they are started
    deaf to it, and their own children with them: a verifier that it ends would fail in the middle of a step.
    """
    # Started by the fork server's start, this one would leave the signal unblocked.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class MemoryWatch:
    """The largest resident set, in bytes, that this process and its children had together whenever it was sampled."""

    def __init__(self) -> None:
        self.process = psutil.Process()
        self.peak = 0
        self.sampled = 0.0

    def sample(self) -> None:
        """Look, at most twice a second."""
        now = time.monotonic()
        if now - self.sampled < 0.5:
            return
        self.sampled = now
        total = 0
        for process in [self.process, *self.process.children(recursive=True)]:
            try:
                total += process.memory_info().rss
            except psutil.NoSuchProcess:
                # It ended between the listing and the look.
                continue
        self.peak = max(self.peak, total)
