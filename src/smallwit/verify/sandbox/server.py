"""The fork server: a small, warm Python that forks one fresh, confined child for every program.

It is asked on its standard input, a socket: "start" with the child's sockets, then "stop", which kills the child and
tells how it ended and what CPU time it took. It never sees a program, a test or an expected value: those travel on
the child's sockets, so that no child can inherit another job's data. The end of the input ends the server.
"""

import array
import gc
import importlib
import json
import os
import random
import signal
import socket
import struct
import sys
from typing import NoReturn

from . import candidate, tester
from .codec import send_frame
from .isolation import FILE_BYTES, FILES, Isolation, LayerError, confine, enter
from .leftovers import holds_more, remove_contents, remove_folder
from .linux import CLONE_NEWPID, enter_pid_namespace, unshare

START, STOP = b"S", b"E"
REQUEST = struct.Struct("<c?xxI")  # what, numpy wanted, CPU seconds of the child
STATUS = struct.Struct("<id")  # exit status as os.waitpid gives it, CPU seconds used
MEMORY = {"candidate": 1 << 30, "tester": 4 << 30}
_REHEARSE = {"candidate": candidate.rehearse, "tester": tester.rehearse}
_PROBE_SECONDS = 10
_DONE = "done"
_WATCH_SECONDS = 0.05
# Modules that programs like: loading them once here is cheaper than in every child.
_WARM = (
    "bisect cmath collections copy dataclasses datetime enum functools heapq itertools json math operator random re "
    "string textwrap time typing"
)
# And these where the child may be a user who cannot read the library (a root's own Python, without namespaces).
_WARM_WITHOUT_NAMESPACES = (
    "array ast base64 calendar contextlib csv decimal difflib fractions hashlib inspect io numbers pprint queue "
    "statistics threading types unicodedata urllib.parse uuid zlib"
)
_NUMPY = ("numpy",)
# What numpy loads when it is first asked for, where the child may not be able to read it.
_NUMPY_WITHOUT_NAMESPACES = ("numpy", "numpy.fft", "numpy.ma", "numpy.polynomial", "numpy.random", "numpy.testing")


class _ForkServer:
    def __init__(self, kind: str, isolation: Isolation, scratch: str, control: socket.socket) -> None:
        self.kind = kind
        self.isolation = isolation
        self.scratch = scratch
        self.control = control
        self.child = 0
        self.child_folder = ""

    def fork(self) -> int:
        """Return a child that is the first of its pid namespace, where there are namespaces."""
        if self.isolation.namespaces:
            enter_pid_namespace(self.isolation.pid_namespace)
            unshare(CLONE_NEWPID)
        return os.fork()

    def folder(self) -> str:
        """Return an empty folder for the next child (the confinement makes its own where there are namespaces)."""
        if self.isolation.namespaces:
            return ""
        remove_contents(self.scratch)
        # A name that no program can guess: what one leaves where no folder can be removed, the next does not find.
        folder = os.path.join(self.scratch, os.urandom(16).hex())
        os.mkdir(folder)
        os.chmod(folder, 0o777)
        return folder

    def probe(self) -> str | None:
        """Run a program of our own to its end in a child. What the machine refuses, a layer's name before the colon;
        `None` when all hold."""
        read, write = os.pipe()
        folder = self.folder()
        try:
            child = self.fork()
        except OSError as error:
            return f"namespaces: {error}"
        if not child:
            said = "program: it does not come to its end"
            try:
                confine(self.isolation, _PROBE_SECONDS, MEMORY[self.kind], folder)
                _REHEARSE[self.kind]()
                said = _DONE
            except LayerError as error:
                said = f"{error.args[0]}: {error.args[1]}"
            finally:
                os.write(write, said.encode())
                os._exit(0)
        os.close(write)
        with open(read, "rb") as file:
            said = file.read().decode()
        os.waitpid(child, 0)
        return None if said == _DONE else said or "program: it is killed"

    def serve(self) -> None:
        while True:
            self.control.settimeout(_WATCH_SECONDS if self.child and self.child_folder else None)
            try:
                message, descriptors = _receive(self.control)
            except TimeoutError:
                self.watch()
                continue
            if len(message) < REQUEST.size:
                break
            what, numpy, cpu_seconds = REQUEST.unpack(message)
            if what == START:
                self.start(descriptors, numpy, cpu_seconds)
            else:
                self.control.sendall(STATUS.pack(*self.stop()))
            for descriptor in descriptors:
                os.close(descriptor)
        self.stop()

    def start(self, descriptors: list[int], numpy: bool, cpu_seconds: int) -> None:
        if numpy and "numpy" not in sys.modules:
            for name in _NUMPY if self.isolation.namespaces else _NUMPY_WITHOUT_NAMESPACES:
                importlib.import_module(name)
        self.child_folder = self.folder()
        self.child = self.fork()
        if not self.child:
            self.become(descriptors, cpu_seconds, self.child_folder)

    def watch(self) -> None:
        """Kill the child if it has written more than it may: no limit of the kernel counts a folder of the host."""
        if holds_more(self.child_folder, FILE_BYTES, FILES):
            self.kill(self.child)

    def kill(self, child: int) -> None:
        if not self.isolation.namespaces:
            _kill_group(child)
        os.kill(child, signal.SIGKILL)

    def become(self, descriptors: list[int], cpu_seconds: int, folder: str) -> NoReturn:
        """Return the child's whole life."""
        try:
            self.control.detach()
            sockets = _only(descriptors)
            confine(self.isolation, cpu_seconds, MEMORY[self.kind], folder)
            random.seed(0)
            if self.kind == "candidate":
                candidate.serve(*sockets)
            else:
                tester.serve(*sockets)
        finally:
            os._exit(0)

    def stop(self) -> tuple[int, float]:
        """Kill the child and what it has started."""
        if not self.child:
            return 0, 0.0
        child, self.child = self.child, 0
        self.kill(child)
        _, status, usage = os.wait4(child, 0)
        return status, usage.ru_utime + usage.ru_stime


def _kill_group(leader: int) -> None:
    try:
        os.killpg(leader, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):  # it has not become a leader yet, or is a zombie (macOS)
        return


def _only(descriptors: list[int]) -> list[socket.socket]:
    """Return the sockets at descriptors 3, 4, ...; the standard three on /dev/null; nothing else open."""
    null = os.open("/dev/null", os.O_RDWR)
    moved = [os.dup(descriptor) for descriptor in descriptors]
    top = max([null, *moved]) + 1
    high = [os.dup2(descriptor, top + index, inheritable=False) for index, descriptor in enumerate(moved)]
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    for index, descriptor in enumerate(high):
        os.dup2(descriptor, 3 + index, inheritable=False)
    os.closerange(3 + len(high), top + len(high) + 64)
    return [socket.socket(fileno=3 + index) for index in range(len(high))]


def _receive(control: socket.socket) -> tuple[bytes, list[int]]:
    descriptors = array.array("i")
    message, ancillary, _, _ = control.recvmsg(REQUEST.size, socket.CMSG_SPACE(2 * descriptors.itemsize))
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
    return message, list(descriptors)


def main(arguments: list[str]) -> None:
    """Serve. Arguments: the kind, the way of isolation, a folder of packages to read, a scratch folder."""
    kind, way, packages, scratch = arguments
    control = socket.socket(fileno=0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if packages:
        sys.path.append(packages)
    try:
        isolation = enter(way, packages)
    except OSError as error:
        send_frame(control, json.dumps({"error": str(error)}).encode())
        return
    for name in f"{_WARM} {'' if isolation.namespaces else _WARM_WITHOUT_NAMESPACES}".split():
        importlib.import_module(name)
    os.environ.clear()
    server = _ForkServer(kind, isolation, scratch, control)
    while (refused := server.probe()) is not None:
        if not isolation.without(refused.partition(":")[0]):
            send_frame(control, json.dumps({"error": refused}).encode())
            return
    _REHEARSE[kind]()
    for name in [name for name in sys.modules if name.startswith("_sandbox")]:
        del sys.modules[name]  # no program needs to find us by name
    gc.collect()
    gc.freeze()
    send_frame(control, json.dumps({"level": isolation.level()}).encode())
    server.serve()
    if scratch:  # also when who started us was killed
        remove_folder(scratch)
