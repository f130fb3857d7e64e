"""A part of the reward of the user's own: a function in a file outside the package, `path/to/file.py:function`."""

import inspect
import math
from collections.abc import Callable
from pathlib import Path

from smallwit.errors import UserError
from smallwit.tasks.base import Problem
from smallwit.tasks.user_file import guarded, user_file, user_function
from smallwit.verify import Verdict

RewardFunction = Callable[[Problem, str, Verdict], float]


def reward_function(reference: str, base: Path | None) -> RewardFunction:
    """Return the user's function at `path/to/file.py:name`; its mistakes are named when they show.

    Raises `UserError` if there is no such function, or if it does not take (problem, response, verdict).
    """
    path, name = _file(reference, base)
    function = user_function(path, name)
    try:
        inspect.signature(function).bind(None, None, None)
    except TypeError as error:
        raise UserError(f"{path}: {name} must take (problem, response, verdict): {error}") from error

    def checked(problem: Problem, response: str, verdict: Verdict) -> float:
        with guarded(path, f"{name} on problem {problem.id}"):
            value = function(problem, response, verdict)
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise UserError(f"{path}: {name} gave {value!r:.60} for problem {problem.id}; give a finite number")
        return float(value)

    return checked


def reward_bytes(reference: str, base: Path | None) -> bytes:
    """Return the bytes of the file that holds a reward function, for cache keys."""
    return _file(reference, base)[0].read_bytes()


def _file(reference: str, base: Path | None) -> tuple[Path, str]:
    return user_file(reference, base, what="reward function", name="function")
