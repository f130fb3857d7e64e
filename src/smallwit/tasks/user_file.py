"""Python files of the user, named as `path/to/file.py:Name`; their errors become one line."""

import hashlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from smallwit.errors import UserError
from smallwit.storage.paths import path_of
from smallwit.suggestions import hint


def user_file(reference: str, base: Path | None, *, what: str = "task", name: str = "ClassName") -> tuple[Path, str]:
    """Return path and name of `path/to/file.py:Name`.

    `what` and `name` say in messages what it is and what stands there.
    """
    path_text, colon, own = reference.rpartition(":")
    if not colon or not own.isidentifier():
        kind = "class" if what == "task" else "function"
        raise UserError(f"{what} '{reference}': no {kind} is named; write {reference.rstrip(':')}:{name}")
    path = (base or Path()) / path_of(path_text)
    if not path.is_file():
        raise UserError(f"{what} '{reference}': {path} is not a file; paths are relative to {base or 'this folder'}")
    return path, own


def user_class(path: Path, class_name: str) -> type:
    """Return the class in a user's file."""
    return _named(path, class_name, "class", "its classes are", lambda value: isinstance(value, type))


def user_function(path: Path, function_name: str) -> Callable[..., Any]:
    """Return the function in a user's file."""
    return _named(path, function_name, "function", "its functions are", lambda value: _is_function(value))


def _is_function(value: Any) -> bool:
    return callable(value) and not isinstance(value, type)


def _named(path: Path, name: str, kind: str, others: str, fits: Callable[[Any], bool]) -> Any:
    module = _run(path)
    found = getattr(module, name, None)
    if not fits(found):
        own = [each for each, value in vars(module).items() if fits(value) and value.__module__ == module.__name__]
        raise UserError(f"{path}: no {kind} {name}; {hint(name, own, others)}")
    return found


def _run(path: Path) -> ModuleType:
    content = path.read_bytes()
    digest = hashlib.sha256(content + str(path.resolve()).encode()).hexdigest()[:16]
    name = f"smallwit_user_file_{digest}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UserError(f"{path}: not a Python file; name one that ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickles look their module up by name
    try:
        with guarded(path):
            # These bytes, which keys are made of, and no bytecode of the same second's that the loader would take.
            exec(compile(content, str(path.resolve()), "exec", dont_inherit=True), module.__dict__)
    except UserError:
        del sys.modules[name]
        raise
    return module


@contextmanager
def guarded(path: Path, what: str = "") -> Iterator[None]:
    """Turn whatever a user's code raises into a `UserError`.

    The message has the file and the line, what failed (`what`), and the user's exception.
    """
    try:
        yield
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        about = f"{what}: " if what else ""
        raise UserError(f"{path}{line_of(error, path)}: {about}{_described(error)}") from error


def _described(error: BaseException) -> str:
    """Return the kind of an exception and its message, in one line without control characters."""
    try:
        text = str(error)
    except Exception as broken:  # noqa: BLE001  it is code of the user's, too
        text = f"(its message fails with {type(broken).__name__})"
    line = " ".join(text.split())
    shown = "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in line)
    return f"{type(error).__name__}: {shown[:300]}" if shown else type(error).__name__


def line_of(error: BaseException, path: Path) -> str:
    """Return `:line` where an error in the user's file arose, if it is known."""
    file = str(path.resolve())
    if isinstance(error, SyntaxError) and error.filename == file:
        return f":{error.lineno}" if error.lineno is not None else ""
    lines = []
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == file:
            lines.append(trace.tb_lineno)
        trace = trace.tb_next
    return f":{lines[-1]}" if lines else ""
