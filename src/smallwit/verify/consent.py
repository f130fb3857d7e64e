"""The gate in front of programs that a model wrote: below `namespaces` they run with the user's consent alone.

Everything that runs such programs passes it, for the code judge itself asks (`smallwit.verify.code`); commands and
recipes ask before they begin, so that nothing is generated in vain. The user consents by the task's option
`isolation`, the level that is enough, or for a whole command by `--allow-unsafe-code`. Child processes inherit that as
SMALLWIT_ALLOW_UNSAFE_CODE=1.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from smallwit.verify.sandbox.isolation import LEVELS

VARIABLE = "SMALLWIT_ALLOW_UNSAFE_CODE"
OPTION = "--allow-unsafe-code"
LEAST_ISOLATION = "namespaces"
"""The level below which no program of a model is run, unless the user says so."""

_accepted: ContextVar[str | None] = ContextVar("accepted isolation", default=None)


def known_level(level: str) -> str:
    """Return `level`, if it is one of `LEVELS`. Raises `ValueError` otherwise."""
    if level not in LEVELS:
        raise ValueError(f"isolation is {level!r}; give one of {', '.join(LEVELS)}")
    return level


def allow() -> None:
    """Let programs run at any level, in this process from now on and in those that it starts."""
    os.environ[VARIABLE] = "1"


def is_allowed() -> bool:
    """Return whether the user lets programs run at any level."""
    return os.environ.get(VARIABLE) == "1"


@contextmanager
def accepting(level: str | None) -> Iterator[None]:
    """Set the least isolation of programs without one of their own (`None`: no change)."""
    token = _accepted.set(level or _accepted.get())
    try:
        yield
    finally:
        _accepted.reset(token)


def needed_level(level: str | None) -> str:
    """Return the least level for a program: `level`, or what is accepted here, or `LEAST_ISOLATION`."""
    return known_level(level or _accepted.get() or LEAST_ISOLATION)


def objection(what: str, offered: str, needed: str, accept: str) -> str | None:
    """Return why `what` may not run programs where `offered` surrounds them, or `None` if it may.

    `accept` says how the user accepts less isolation.
    """
    if is_allowed() or LEVELS.index(offered) >= LEVELS.index(needed):
        return None
    return (
        f"{what} runs programs that a model wrote, and this machine's isolation for them is '{offered}', not "
        f"'{needed}'; run it where there is more, or accept it by {accept}"
    )
