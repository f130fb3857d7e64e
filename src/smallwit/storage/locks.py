"""Locks on folders and files, which end with the process that has them."""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from smallwit.errors import UserError
from smallwit.storage.artifacts import open_own, why_not_opened

SHARE_SECONDS = 300.0
"""Seconds to wait for the first process, which has a folder alone while it checks what is there."""


class FolderLock:
    """The lock of a folder. `first` tells whether no other process had one."""

    def __init__(self, file: BinaryIO, first: bool) -> None:
        self.file, self.first = file, first

    def share(self) -> None:
        """Let other processes have a shared lock, too."""
        fcntl.flock(self.file, fcntl.LOCK_SH)

    def take(self) -> None:
        """Wait until no other process has a lock, and take it alone."""
        fcntl.flock(self.file, fcntl.LOCK_EX)


@contextmanager
def occupied(folder: Path, what: str, shared: bool = False) -> Iterator[FolderLock]:
    """Make `folder` and lock it. The lock ends with the process.

    With `shared` others may have it too: the first has the folder alone until it shares the lock, and the others wait.

    Raises `UserError`, which begins with `what`, if it cannot be written or another process has it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open_own(folder / ".lock")
    except OSError as error:
        why = why_not_opened(error)
        raise UserError(f"{what}: cannot be written ({why}); name a folder that you may write") from error
    with file:
        deadline = time.monotonic() + (SHARE_SECONDS if shared else 0.0)
        while True:
            if first := locked(file):
                break
            if shared and locked(file, fcntl.LOCK_SH):
                break
            if time.monotonic() >= deadline:
                message = f"{what}: another smallwit is at work there; wait for it, or name another folder"
                raise UserError(message)
            time.sleep(0.1)
        yield FolderLock(file, first)


def locked(file: BinaryIO, how: int = fcntl.LOCK_EX) -> bool:
    """Lock a file if no other process has a lock that forbids it, and return whether it did."""
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
