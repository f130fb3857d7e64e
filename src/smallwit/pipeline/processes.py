"""Worker processes: started from a fork server, read through pipes, stopped together, their memory measured."""

import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
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

REMINDER_SECONDS = 30.0
"""Time between lines that name the stages which have not saved yet."""
EXIT_SECONDS = 10.0
PEER_FAILURE_SECONDS = 5.0
"""Seconds to wait for the cause after a process has reported that it lost another one."""
FORK_SERVER_LOST = 255
"""The exit status that multiprocessing reports for a process whose fork server has ended; no stage exits with it."""

Message = tuple[Any, ...]


class Member:
    """A process of a job and the pipe that it reports through. Closing `lifeline` ends the process.

    multiprocessing knows a process only through the fork server, and reports it as ended when the fork
    server has ended. So liveness and signals use the process id through psutil, which notices a reused id.
    """

    def __init__(self, process: BaseProcess, pipe: Connection, lifeline: Connection) -> None:
        self.process, self.pipe, self.lifeline = process, pipe, lifeline
        try:
            self.itself: psutil.Process | None = psutil.Process(process.pid)
        except psutil.NoSuchProcess:
            self.itself = None

    def messages(self) -> Iterator[Message]:
        """Yield the messages since the last call; ("ended", status) comes last when the process has ended."""
        alive = self.process.is_alive()
        try:
            while self.pipe.poll():
                yield self.pipe.recv()
        except (EOFError, OSError):
            # A process that is killed while it sends leaves half a message.
            alive = False
        if not alive:
            self.close()
            yield "ended", self.process.exitcode

    def is_alive(self) -> bool:
        """Return whether the process runs, even if its fork server has ended."""
        try:
            return self.itself is not None and self.itself.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    def terminate(self) -> None:
        """Ask the process to save and stop."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the process, and wait until it has ended."""
        self._signal(signal.SIGKILL)
        deadline = time.monotonic() + EXIT_SECONDS
        while self.is_alive() and time.monotonic() < deadline:
            time.sleep(0.005)
        self.process.join()

    def close(self) -> None:
        """Wait shortly for a process that is done, then kill it and close its pipes."""
        self.process.join(EXIT_SECONDS)
        self.kill()
        self.pipe.close()
        self.lifeline.close()

    def _signal(self, number: int) -> None:
        if self.itself is not None:
            with suppress(psutil.NoSuchProcess):
                self.itself.send_signal(number)


class Running:
    """The processes of a job. The first reports for all; the others report only failures."""

    def __init__(self, name: str, members: Sequence[Member]) -> None:
        self.name, self.first = name, members[0]
        self.members = list(members)
        self.lost: tuple[float, str] | None = None

    def messages(self) -> Iterator[Message]:
        """Yield the messages of the job since the last call.

        When one process fails, the others report that they lost it. The cause may arrive only at a later call, so a
        loss is reported as the failure after `PEER_FAILURE_SECONDS` without a cause.
        """
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
        if self.lost is not None and (not self.members or time.monotonic() - self.lost[0] > PEER_FAILURE_SECONDS):
            yield "failed", "Failed", self.lost[1]

    def _forget(self, member: Member) -> None:
        member.kill()
        member.close()
        self.members.remove(member)

    def close(self) -> None:
        """Wait shortly for processes that are done, then end them."""
        for member in self.members:
            member.close()

    def kill(self) -> None:
        """Kill all processes."""
        for member in self.members:
            member.kill()


class NotStarted(Exception):
    """A process could not be started. The message gives the reason."""


def start(job: Job, name: str, context: BaseContext) -> Running:
    """Start the processes of a job. Several of them connect through a local port, where the first one listens.

    Raises `NotStarted` when the fork server has ended, or the machine cannot start another process.
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
    receiver, sender = context.Pipe(duplex=False)
    lifeline_receiver, lifeline_sender = context.Pipe(duplex=False)
    arguments = (job, sender, lifeline_receiver, rank, meeting)
    process = context.Process(target=worker.main, args=arguments, name=name)  # type: ignore[attr-defined]
    with _sigint_blocked():
        process.start()
    sender.close()
    lifeline_receiver.close()
    return Member(process, receiver, lifeline_sender)


def wait_for_news(running: Sequence[Running], seconds: float) -> None:
    """Wait until a process sends a message or ends, at most `seconds`."""
    members = [member for one in running for member in one.members]
    wait([member.pipe for member in members] + [member.process.sentinel for member in members], timeout=seconds)


def stop(running: Sequence[Running], say: Callable[[str], None]) -> None:
    """Ask every job to save and stop, and wait until it has: a step of a large model takes minutes on a CPU.

    A second interrupt kills them at once. `say` gets a line for each `REMINDER_SECONDS`.
    """
    try:
        # Only the first process of a job saves; the others have nothing to lose.
        for one in running:
            one.first.terminate()
        begun, reminders = time.monotonic(), 0
        while names := [one.name for one in running if one.first.is_alive()]:
            time.sleep(0.02)
            for one in running:
                for member in one.members:
                    _drain(member.pipe)
            seconds = time.monotonic() - begun
            if seconds > (reminders + 1) * REMINDER_SECONDS:
                reminders += 1
                say(f"{', '.join(names)}: not saved yet after {seconds:.0f} s (Ctrl-C stops at once)")
    finally:
        for one in running:
            one.kill()


def _drain(pipe: Connection) -> None:
    """Read and drop the messages of a pipe: a full pipe would block the process that is to stop."""
    try:
        while not pipe.closed and pipe.poll():
            pipe.recv()
    except (EOFError, OSError):
        return


def preloaded_modules() -> list[str]:
    """Return the modules that the fork server imports once for the processes of all stages."""
    kinds_of(Stage)  # imports the kinds
    modules = [module for stage in subclasses_of(Stage) for module in stage.preload]
    return list(dict.fromkeys([*modules, "smallwit.pipeline.warm_up"]))


def fork_server() -> BaseContext:
    """Return the context that starts processes: a fork server that has imported the heavy libraries, or spawn on macOS.

    Forking is not safe on macOS.
    """
    if sys.platform == "darwin":
        return get_context("spawn")
    context = get_context("forkserver")
    context.set_forkserver_preload(preloaded_modules())
    # After a process has initialised CUDA, its forks cannot use CUDA. Some libraries look for devices while they are
    # imported; with this variable torch asks the driver's management library (NVML) instead.
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    with _sigint_blocked():
        forkserver.ensure_running()
    return context


@contextmanager
def _sigint_blocked() -> Iterator[None]:
    """Block SIGINT in the processes that are started in this context, a fork server among them.

    Ctrl-C reaches every process of the terminal, and only the parent decides which of them stop. Their own children
    inherit the block: a verifier that Ctrl-C ends would fail in the middle of a step.
    """
    # If the fork server's start had to start this one, it would unblock the signal.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class MemoryWatch:
    """The peak resident memory of this process and its children together, in bytes, over all samples."""

    def __init__(self) -> None:
        self.process = psutil.Process()
        self.peak = 0
        self.sampled = 0.0

    def sample(self) -> None:
        """Measure the memory, at most twice a second."""
        now = time.monotonic()
        if now - self.sampled < 0.5:
            return
        self.sampled = now
        total = 0
        for process in [self.process, *self.process.children(recursive=True)]:
            try:
                total += process.memory_info().rss
            except psutil.NoSuchProcess:
                # It ended between the listing and the measurement.
                continue
        self.peak = max(self.peak, total)
