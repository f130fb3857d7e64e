"""A file of lines that one process appends to, and whose tail can be repaired after a kill."""

import fcntl
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from smallwit.errors import UserError
from smallwit.storage.artifacts import open_own, why_not_opened, write_atomically


class AppendLog:
    """A file of lines with one writer: while it is open, other processes are refused. A context manager.

    A killed process leaves whole lines and at most one unfinished line behind them. The reader of `lines` decides what
    is kept: it calls `rewind` or `replace` before the first `append`.
    """

    def __init__(self, path: Path, *, follow_links: bool = False) -> None:
        """Open the file, or make it. `follow_links` allows a symbolic link to an ordinary file.

        Raises `UserError` when it cannot be written, is no ordinary file, or another process has it open.
        """
        self.path, self._follow_links = path, follow_links
        self._file = self._open()

    def _open(self) -> BinaryIO:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = open_own(self.path, follow_links=self._follow_links)
        except OSError as error:
            raise UserError(f"{self.path}: cannot be written ({why_not_opened(error)}); name another file") from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.close()
            raise UserError(f"{self.path}: another process writes there; wait for it, or name another file") from error
        return file

    def __enter__(self) -> "AppendLog":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Yield each line, and the byte at which it starts. The last line may lack its line feed."""
        self._file.seek(0)
        start = 0
        for line in self._file:
            yield start, line
            start += len(line)

    def size(self) -> int:
        """Return the length of the file in bytes."""
        return os.fstat(self._file.fileno()).st_size

    def read(self, start: int, size: int) -> bytes:
        """Return `size` bytes from the byte `start` on."""
        return os.pread(self._file.fileno(), size, start)

    def append(self, line: bytes) -> None:
        """Write a line with its line feed. A kill of this process does not lose it. Raises `OSError` on a full disk."""
        self._file.write(line)
        self._file.flush()

    def rewind(self, end: int) -> None:
        """Cut off everything behind the first `end` bytes."""
        self._file.truncate(end)

    def replace(self, lines: Sequence[bytes]) -> None:
        """Make the file hold these lines, in one step."""
        write_atomically(self.path, b"".join(lines).decode())
        self._file.close()
        self._file = self._open()

    def sync(self) -> None:
        """Wait until the disk has everything."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file; other processes may open it then."""
        self._file.close()
