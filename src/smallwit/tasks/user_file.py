"""Files of the user's own, named as `path/to/file.py:Name`; what goes wrong in them is said in one line."""

import hashlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from smallwit.errors import UserError
from smallwit.given import path_of
from smallwit.nearest import hint


def user_file(reference: str, base: Path | None, *, what: str = "task", name: str = "ClassName") -> tuple[Path, str]:
    """Path and name of `path/to/file.py:Name`. `what` and `name` say in messages what it is and what stands there."""
    path_text, colon, own = reference.rpartition(":")
    if not colon or not own.isidentifier():
        kind = "class" if what == "task" else "function"
        raise UserError(f"{what} '{reference}': no {kind} is named; write {reference.rstrip(':')}:{name}")
    path = (base or Path()) / path_of(path_text)
    if not path.is_file():
        raise UserError(f"{what} '{reference}': {path} is not a file; paths are relative to {base or 'this folder'}")
    return path, own


def user_class(path: Path, class_name: str) -> type:
    """The class in a user's file."""
    return _named(path, class_name, "class", "its classes are", lambda value: isinstance(value, type))


def user_function(path: Path, function_name: str) -> Callable[..., Any]:
    """The function in a user's file."""
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
    digest = hashlib.sha256(path.read_bytes() + str(path.resolve()).encode()).hexdigest()[:16]
    name = f"smallwit_user_file_{digest}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UserError(f"{path}: not a Python file; name one that ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickles look their module up by name
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        # The user's own code may fail of anything, or leave; all of it is theirs to mend, by file and line.
        del sys.modules[name]
        said = " ".join(str(error).split())[:300]
        raise UserError(f"{path}{line_of(error, path)}: {type(error).__name__}: {said}; mend the file") from error
    return module


def line_of(error: BaseException, path: Path) -> str:
    """`:line` where an error in the user's file arose, if it is known."""
    if isinstance(error, SyntaxError):
        return f":{error.lineno}" if error.lineno else ""
    lines = []
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            lines.append(trace.tb_lineno)
        trace = trace.tb_next
    return f":{lines[-1]}" if lines else ""
