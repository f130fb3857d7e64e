"""The child that runs published tests. It is trusted, and it never runs anything of the candidate.

The tests see stand-ins: the entry point, and any name that only the program defines (a class that a test builds
objects of), are `Remote`s that send their arguments to the candidate's process and get plain data back. An object that
is not plain data stays over there, and a `Remote` here stands for it; it can be called, read, assigned to and
iterated over, and refuses every comparison, so that no test can pass because an object of the candidate says so.
What the prompt defines (HumanEval's helpers) and modules of the standard library are the real ones, from here.

Frames to it: `(prompt, entry_point, response, tests, setup)`. Frames from it: `READY`, the program as the candidate's
process read it, and the outcome: `correct`, `wrong`, `limit`, `no-answer`, `infrastructure`, or `ended`: the
candidate's process ended, and the judge has to see how.
"""

import builtins
import importlib
import socket
import sys
from typing import Any, NoReturn

from .candidate import ERROR, LIMIT, READY, REQUEST_BYTES, VALUE
from .codec import MAX_BYTES, CodecError, NotPlainError, TooLargeError, decode, encode, receive_frame, send_frame


def serve(judge: socket.socket, connection: socket.socket) -> None:
    """Run the tests of one job against the candidate at `connection`, report to `judge`."""
    send_frame(judge, READY)
    prompt, entry_point, response, tests, setup = decode(receive_frame(judge, REQUEST_BYTES))
    link = _Link(connection)
    send_frame(judge, link.open(prompt, entry_point, response))
    send_frame(judge, _run(link, prompt, entry_point, tests, setup).encode())


def _run(link: "_Link", prompt: str, entry_point: str, tests: str | list[str], setup: str) -> str:
    if link.state:
        return link.state
    names = _Names(link)
    try:
        stand_in = link.load(entry_point)
        _helpers(prompt, names)
        names[entry_point] = stand_in
        exec(compile(setup, "setup", "exec", dont_inherit=True), names)
        source = tests if isinstance(tests, str) else "\n".join(tests)
        exec(compile(source, "tests", "exec", dont_inherit=True), names)
        check = names.get("check")
        if check is not None and check is not stand_in:
            check(stand_in)
    except BaseException as error:  # noqa: BLE001 (a SystemExit in a test is a failure like any other)
        # A failure before the program was asked for anything, or of a value the link cannot carry, is the tests' own.
        ours = isinstance(error, NotPlainError) or not link.asked
        return link.state or ("infrastructure" if ours else "wrong")
    # Tests that have asked the program for nothing say nothing of it.
    return link.state or ("correct" if link.asked else "infrastructure")


def _helpers(prompt: str, names: "_Names") -> None:
    """Define what the prompt defines, where the prompt is Python."""
    try:
        code = compile(prompt, "prompt", "exec", dont_inherit=True)
    except (SyntaxError, ValueError):
        return
    exec(code, names)


def rehearse() -> None:
    """Run one test in the server against written-down replies, so that children find ready what Python sets up once."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        function = encode(theirs, reference=lambda _: 0)
        for frame in (READY, encode(("", True)), VALUE + encode(None), VALUE + function, VALUE + encode(1)):
            send_frame(theirs, frame)
        link = _Link(ours)
        link.open("", "f", "")
        if _run(link, "", "f", ["assert f(1) == 1"], "") != "correct":
            raise RuntimeError("the sandbox cannot run its own test")


class _Names(dict[str, Any]):
    """The tests' global names. What is missing is a module of the standard library, or the program's."""

    def __init__(self, link: "_Link") -> None:
        super().__init__(__name__="tests", __builtins__=builtins)
        self.link = link

    def __missing__(self, name: str) -> Any:
        if hasattr(builtins, name) or name.startswith("__"):
            raise KeyError(name)  # Python looks among the builtins next
        if name in sys.stdlib_module_names:
            return importlib.import_module(name)
        return _Remote(self.link, 0).__getattr__(name)


class _Remote:
    """An object that lives in the candidate's process."""

    __slots__ = ("_link", "_number")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, link: "_Link", number: int) -> None:
        object.__setattr__(self, "_link", link)
        object.__setattr__(self, "_number", number)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self._link.ask("get", self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._link.ask("set", self, name, value)

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        return self._link.ask("call", self, arguments, keywords)

    def __iter__(self) -> Any:
        return iter(self._link.ask("list", self))

    def _refuse(self, *_: Any) -> NoReturn:
        raise TypeError("an object of the candidate cannot be compared")

    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __bool__ = _refuse


def _reference(value: Any) -> int | None:
    return value._number if type(value) is _Remote else None


class _Link:
    """The connection to the candidate. `state` is set once it has failed for good: no test passes after that."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.state = ""
        self.asked = False

    def open(self, prompt: str, entry_point: str, response: str) -> bytes:
        """Hand the response over. What the process read from it, before anything of it ran."""
        nothing = encode(None)
        try:
            if receive_frame(self.connection) != READY:
                raise EOFError("the candidate's process is not ready")
        except (OSError, EOFError):
            self.state = "infrastructure"
            return nothing
        try:
            send_frame(self.connection, encode((prompt, entry_point, response, None), REQUEST_BYTES))
            program = receive_frame(self.connection)
        except (OSError, EOFError):  # a text that kills the compiler
            self.state = "ended"
            return nothing
        if program == nothing:
            self.state = "no-answer"
        return program

    def load(self, entry_point: str) -> Any:
        """Return the entry point of the loaded program.

        Raises what loading raised, and if there is no such function.
        """
        self.asked = True
        self.receive()
        function = _Remote(self, 0).__getattr__(entry_point)
        if type(function) is not _Remote:
            raise TypeError("the entry point is no function")
        self.asked = False
        return function

    def ask(self, *request: Any) -> Any:
        message = encode(request, REQUEST_BYTES, reference=_reference)
        self.asked = True
        try:
            send_frame(self.connection, message)
        except OSError as error:
            self.fail("ended", error)
        return self.receive()

    def receive(self) -> Any:
        try:
            outcome = receive_frame(self.connection, MAX_BYTES + 1)
        except TooLargeError as error:
            self.fail("limit", error)
        except (OSError, EOFError) as error:
            self.fail("ended", error)
        kind, data = outcome[:1], outcome[1:]
        if kind == LIMIT:
            self.fail("limit", MemoryError())
        if kind not in (VALUE, ERROR):
            self.fail("wrong", EOFError())
        try:
            value = decode(data, lambda number: _Remote(self, number))
        except CodecError as error:
            self.fail("wrong", error)
        if kind == ERROR:
            raise _exception(value)
        return value

    def fail(self, state: str, error: BaseException) -> NoReturn:
        """Return the candidate is lost, or over a limit."""
        self.state = self.state or state
        raise ConnectionError("the candidate is lost") from error


# Inside of a test's map() or zip() these would end the loop quietly, and the test with it.
_ENDS_LOOPS = (StopIteration, StopAsyncIteration)


def _exception(value: Any) -> Exception:
    """Return an exception of the candidate as one of ours: the builtin class by that name, if it is an ordinary one."""
    name = value[0] if isinstance(value, tuple) and value and isinstance(value[0], str) else "Exception"
    kind = getattr(builtins, name, Exception)
    if not (isinstance(kind, type) and issubclass(kind, Exception)) or issubclass(kind, _ENDS_LOOPS):
        kind = RuntimeError
    try:
        return kind("raised by the candidate")
    except TypeError:  # UnicodeDecodeError and its like want more
        return RuntimeError("raised by the candidate")
