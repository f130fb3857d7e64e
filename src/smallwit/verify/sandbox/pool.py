"""The fork servers of the sandbox, as the calling process sees them: start, restart, requests, and their pool."""

import contextlib
import importlib.util
import json
import logging
import math
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from smallwit.verify.sandbox.codec import receive_frame
from smallwit.verify.sandbox.leftovers import new_folder, remove_folder
from smallwit.verify.sandbox.server import REQUEST, START, STATUS, STOP
from smallwit.verify.worker_pool import WorkerPool

_LOG = logging.getLogger(__name__)
_START_SECONDS = 30.0
_STOP_SECONDS = 10.0
# No site, no bytecode, no user folder, nothing from the working directory. This is `-I` less `-E`: the environment is
# ours and holds only these, a fixed hash seed among them, so that a program that depends on the order of a set gets the
# same verdict every day.
_PYTHON = (sys.executable, "-P", "-s", "-S", "-B")
_ENVIRONMENT = {"PYTHONHASHSEED": "0", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


class ServerLostError(Exception):
    """A fork server did not start, or died."""


class RefusedError(ServerLostError):
    """The machine refuses this way of isolation."""


class Server:
    """One fork server. `kind` is "candidate" or "tester", `way` one of the ways of `isolation.enter`."""

    def __init__(self, kind: str, way: str) -> None:
        packages = _numpy_folder() if kind == "tester" else ""
        self.scratch, self.scratch_lock = new_folder() if way == "none" else ("", -1)
        self.control, theirs = socket.socketpair()
        script = str(Path(__file__).with_name("start.py"))
        with theirs:
            try:
                self.process = subprocess.Popen(
                    [*_PYTHON, script, kind, way, packages, self.scratch],
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env=_ENVIRONMENT,
                    cwd="/",
                    start_new_session=True,
                )
            except OSError as error:
                self.control.close()
                self.drop_scratch()
                raise ServerLostError(f"the {kind} server does not start: {error}") from error
        try:
            hello = json.loads(receive_frame(self.control, 4096, time.monotonic() + _START_SECONDS))
        except (OSError, EOFError) as error:
            self.close()
            raise ServerLostError(f"the {kind} server does not start (status {self.process.returncode})") from error
        if "error" in hello:
            self.close()
            raise RefusedError(hello["error"])
        self.level: str = hello["level"]

    def start(self, sockets: Sequence[socket.socket], cpu_seconds: float, numpy: bool = False) -> None:
        """Fork a child that holds `sockets` and dies after `cpu_seconds` (rounded up)."""
        request = REQUEST.pack(START, numpy, math.ceil(cpu_seconds))
        try:
            self.control.settimeout(_STOP_SECONDS)
            socket.send_fds(self.control, [request], [end.fileno() for end in sockets])
        except OSError as error:
            raise ServerLostError("the server is gone") from error

    def stop(self) -> tuple[int, float]:
        """Kill the child. How it ended (as `os.waitpid` says it) and the CPU seconds it used."""
        try:
            self.control.settimeout(_STOP_SECONDS)
            self.control.sendall(REQUEST.pack(STOP, False, 0))
            data = self.control.recv(STATUS.size, socket.MSG_WAITALL)
        except OSError as error:
            raise ServerLostError("the server is gone") from error
        if len(data) < STATUS.size:
            raise ServerLostError("the server is gone")
        status, cpu_seconds = STATUS.unpack(data)
        return status, cpu_seconds

    def close(self) -> None:
        """End the server and all that runs under it."""
        self.hang_up()
        try:
            self.process.wait(2.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.drop_scratch()

    def drop_scratch(self) -> None:
        """Remove the folder for programs, where there is one."""
        if not self.scratch:
            return
        if not remove_folder(self.scratch):
            _LOG.warning("%s: cannot be removed; a program left something there", self.scratch)
        os.close(self.scratch_lock)
        self.scratch = ""

    def hang_up(self) -> None:
        """Close the socket: the server then ends by itself. A thread that is waiting on it wakes up."""
        with contextlib.suppress(OSError):  # it is closed already, on this side or the other
            self.control.shutdown(socket.SHUT_RDWR)
        self.control.close()

    def forget(self) -> None:
        """Release this side of a server that belongs to the parent, in a forked child."""
        self.control.close()
        if self.scratch:
            os.close(self.scratch_lock)
        self.process.returncode = 0  # not ours to wait for


def _numpy_folder() -> str:
    """Return the folder that holds numpy, which published tests import."""
    spec = importlib.util.find_spec("numpy")
    return str(Path(spec.origin).parent.parent) if spec is not None and spec.origin else ""


class SandboxWorker:
    """A server for candidates and, once it is needed, one for testers."""

    def __init__(self) -> None:
        self.servers: dict[str, Server] = {}
        self.closed = False

    def server(self, kind: str) -> Server:
        """Return the running server of that kind. Raises `ServerLostError` when none can be started."""
        if self.closed:
            raise ServerLostError("the pool is closed")
        if kind not in self.servers:
            self.servers[kind] = _start(kind)
            if self.closed:  # while it started
                self.restart()
                raise ServerLostError("the pool is closed")
        return self.servers[kind]

    def restart(self) -> None:
        """End the servers; the next job gets fresh ones."""
        while self.servers:
            self.servers.popitem()[1].close()

    def usable(self) -> bool:
        """Return whether the worker is open: servers that end are started again."""
        return not self.closed

    def interrupt(self) -> None:
        """Hang up on the servers, which end by themselves then."""
        self.closed = True
        for server in list(self.servers.values()):
            server.hang_up()

    def close(self) -> None:
        """End the servers for good."""
        self.closed = True
        self.restart()

    def forget(self) -> None:
        """Release this side of the parent's servers, in a forked child."""
        for server in self.servers.values():
            server.forget()


_ways: list[str] = ["root", "user", "none"] if os.geteuid() == 0 else ["user", "none"]
_ways_lock = threading.Lock()


def _start(kind: str) -> Server:
    """Return a server with the best isolation that this machine offers.

    What it refuses is tried once and said aloud; once a way has worked, nothing less is ever used.
    """
    with _ways_lock:
        while len(_ways) > 1:
            try:
                server = Server(kind, _ways[0])
            except RefusedError as error:
                _LOG.warning("code runs with less isolation (namespaces as %s: %s)", _ways[0], error)
                _ways.pop(0)
            else:
                del _ways[1:]
                return server
    return Server(kind, _ways[0])


class SandboxPool(WorkerPool[SandboxWorker]):
    """Workers that run programs. `close` returns when no program runs any more."""

    closes_lent_workers: ClassVar = True

    def __init__(self) -> None:
        super().__init__(SandboxWorker, lambda: ServerLostError("the pool is closed"))
