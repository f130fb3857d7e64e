"""The processes that compute: started from a fork server, listened to, stopped together, their memory watched."""

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import forkserver, get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any

import psutil

from smallwit.stages import worker
from smallwit.stages.job import Job

STOP_SECONDS = 30.0
LEAVE_SECONDS = 10.0
CAUSE_SECONDS = 5.0
"""How long it may take until it is known why a process that the others have lost has failed."""

Message = tuple[Any, ...]


@dataclass
class Member:
    """One process of a job and the pipe that it reports through. Closing `lifeline` ends the process."""

    process: BaseProcess
    pipe: Connection
    lifeline: Connection

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

    def close(self) -> None:
        """Let a process that has said its last word leave; it is not waited for long."""
        self.process.join(LEAVE_SECONDS)
        self.process.kill()
        self.process.join()
        self.pipe.close()
        self.lifeline.close()


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
        member.process.kill()
        member.close()
        self.members.remove(member)

    def close(self) -> None:
        """Let processes that have done their work leave; they are not waited for long."""
        for member in self.members:
            member.close()

    def kill(self) -> None:
        """End all processes."""
        for member in self.members:
            member.process.kill()
        for member in self.members:
            member.process.join()


def start(job: Job, name: str, context: BaseContext) -> Running:
    """Start the processes of a job. Several meet at a port of this machine's own, where the first listens."""
    if job.processes == 1:
        return Running(name, [_start(job, name, context, 0, None)])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        meetings = [listener, *[port] * (job.processes - 1)]
        return Running(name, [_start(job, name, context, rank, meeting) for rank, meeting in enumerate(meetings)])


def _start(job: Job, name: str, context: BaseContext, rank: int, meeting: socket.socket | int | None) -> Member:
    here, there = context.Pipe(duplex=False)
    lifeline_there, lifeline_here = context.Pipe(duplex=False)
    arguments = (job, there, lifeline_there, rank, meeting)
    process = context.Process(target=worker.main, args=arguments, name=name)  # type: ignore[attr-defined]
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
        firsts = [one.first.process for one in running]
        for process in firsts:
            process.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        while any(process.is_alive() for process in firsts) and time.monotonic() < deadline:
            wait([process.sentinel for process in firsts if process.is_alive()], timeout=0.1)
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


def fork_server() -> BaseContext:
    """A fork server that has imported the heavy libraries once; fresh processes on macOS, where that is not safe."""
    if sys.platform == "darwin":
        return get_context("spawn")
    context = get_context("forkserver")
    context.set_forkserver_preload(list(worker.MODULES.values()))
    # A process that has asked CUDA for its devices can fork none that uses them. Some libraries ask while they are
    # imported; with this torch asks the driver's management library (NVML) instead.
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    # Ctrl-C reaches every process of the terminal. Whether the others stop is for this one to say, so they are started
    # deaf to it, and their own children with them: a verifier that it ends would fail in the middle of a step.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return context


@contextmanager
def terminable() -> Iterator[None]:
    """Within, SIGTERM is taken as Ctrl-C is: what runs is saved and can be resumed."""
    if threading.current_thread() is not threading.main_thread():
        # Only the main thread may set handlers; then it is the caller's business.
        yield
        return

    def interrupt(signum: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


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
