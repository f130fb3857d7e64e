"""The child that runs a program: arguments come in, plain data goes out. It is told nothing else.

Frames to it: first `(prompt, entry_point, response, cases)`. Frames from it: `READY`, then the program as it was read
from the response (before anything of it runs), then outcomes: one byte of `VALUE`, `ERROR` or `LIMIT`, and data.

With `cases` (a list of encoded argument tuples) there is one outcome for all: the canonical encoding of the list of
results. Without, it loads the program, says how that went, and serves requests: see `_Objects`.

What the program says here may be a lie: it runs in this process and may write anything on the socket. Whoever reads
the outcomes must take them as data and nothing more.
"""

import builtins
import socket
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from .codec import TooLargeError, decode, encode, receive_frame, send_frame
from .extract import Program, extract_program

READY, VALUE, ERROR, LIMIT = b"ready", b"V", b"E", b"L"
REQUEST_BYTES = 256 << 20  # from the judge or the tester, who are trusted


def serve(connection: socket.socket) -> None:
    """Serve one program, until the other side closes the connection or the process is killed."""
    send_frame(connection, READY)
    prompt, entry_point, response, cases = decode(receive_frame(connection, REQUEST_BYTES))
    program = extract_program(prompt, entry_point, response)
    send_frame(connection, encode(None if program is None else (program.answer, program.strict)))
    if program is None:
        return
    if cases is not None:
        send_frame(connection, _outcome(lambda: _run_cases(program, entry_point, cases)))
        return
    objects = _Objects()
    send_frame(connection, _outcome(lambda: objects.load(program)))
    while True:
        request = decode(receive_frame(connection, REQUEST_BYTES), objects.find)
        send_frame(connection, _outcome(lambda: objects.answer(*request)))  # noqa: B023 (called at once)


def _outcome(work: Callable[[], bytes]) -> bytes:
    try:
        return VALUE + work()
    except (MemoryError, TooLargeError):
        return LIMIT
    except BaseException as error:  # noqa: BLE001 (SystemExit too: nothing that a program raises ends the protocol)
        return ERROR + encode((_builtin_name(error), str(type(error).__name__)[:100]))


def _builtin_name(error: BaseException) -> str:
    """Return the nearest builtin class of an exception, so that a test may expect it."""
    names = (kind.__name__ for kind in type(error).__mro__ if getattr(builtins, kind.__name__, None) is kind)
    return next(names, "Exception")


def _load(program: Program) -> ModuleType:
    module = ModuleType("candidate")
    sys.modules["candidate"] = module  # dataclasses look their module up
    if program.preamble:
        exec(compile(program.preamble, "preamble", "exec", dont_inherit=True), module.__dict__)
    exec(compile(program.source, "candidate", "exec", dont_inherit=True), module.__dict__)
    return module


def _run_cases(program: Program, entry_point: str, cases: list[bytes]) -> bytes:
    function = getattr(_load(program), entry_point)
    # Encoded at once, each with fresh arguments: no case sees what another has changed.
    results = [encode(function(*decode(arguments)), canonical=True) for arguments in cases]
    return encode(results)


def rehearse() -> None:
    """Run one program of our own in the server: what Python sets up on first use, every child then finds ready."""
    program = extract_program("", "f", "```python\ndef f(a):\n    return a\n```")
    if program is None or _run_cases(program, "f", [encode((1,))]) != encode([encode(1, canonical=True)]):
        raise RuntimeError("the sandbox cannot run its own program")


class _Objects:
    """The program's objects by number, for a caller outside: 0 is its module, others are given out as they come.

    Requests: ("get", object, name), ("set", object, name, value), ("call", object, arguments, keywords),
    ("list", object).
    """

    def __init__(self) -> None:
        self.known: list[Any] = []

    def load(self, program: Program) -> bytes:
        self.known.append(_load(program))
        return encode(None)

    def number(self, value: Any) -> int:
        self.known.append(value)
        return len(self.known) - 1

    def find(self, number: int) -> Any:
        return self.known[number]

    def answer(self, what: str, target: Any, *rest: Any) -> bytes:
        result: Any = None
        if what == "get":
            result = getattr(target, rest[0])
        elif what == "set":
            setattr(target, rest[0], rest[1])
        elif what == "call":
            result = target(*rest[0], **rest[1])
        else:
            result = list(target)
        return encode(result, reference=self.number)
