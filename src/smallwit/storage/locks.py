"""A lock on a folder, for one process at a time."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from smallwit.errors import UserError
from smallwit.storage.artifacts import open_own, why_not_opened


@contextmanager
def occupied(folder: Path, what: str) -> Iterator[None]:
    """Make `folder` and lock it. The lock ends with the process.

    Raises `UserError`, which begins with `what`, if it cannot be written or another process has it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = open_own(folder / ".lock")
    except OSError as error:
        why = why_not_opened(error)
        raise UserError(f"{what}: cannot be written ({why}); name a folder that you may write") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            message = f"{what}: another smallwit is at work there; wait for it, or name another folder"
            raise UserError(message) from None
        yield
