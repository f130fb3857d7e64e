"""Finished work that must not be done twice, on disk as it comes: replies of models, most of all."""

import fcntl
import hashlib
import json
import logging
import os
import time
from pathlib import Path
from typing import Any

from smallwit.errors import UserError
from smallwit.storage.artifacts import open_own, why_not_opened

_SYNC_SECONDS = 1.0
_SUM, _END = b', "sum": "', b'"}\n'
_log = logging.getLogger(__name__)


class Journal:
    """JSON data by key, one line each in a file that only grows: `{"key": ..., "value": ..., "sum": ...}`. A context
    manager.

    A key is a text, such as a `content_key` of all that the value depends on. In memory are the places of the lines.

    A line that was cut off, by a kill or a full disk, or was changed (`sum` is of the bytes before it) counts as not
    there, and that is said. Written lines reach the system at once and the disk at least every second, so that a kill
    loses nothing and a power cut a second.
    """

    def __init__(self, path: Path) -> None:
        """Opens, or makes, the file. Raises `UserError` when another process has it, or it cannot be written."""
        self.path = path
        self.places: dict[str, tuple[int, int]] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.file = open_own(path)
        except OSError as error:
            raise UserError(f"{path}: cannot be written ({why_not_opened(error)}); name another place") from error
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.file.close()
            raise UserError(f"{path}: another process writes there; wait for it, or name another file") from error
        self.end = self._read()
        self.synced = time.monotonic()

    def _read(self) -> int:
        self.file.seek(0)
        start, whole = 0, True
        for line in self.file:
            whole = line.endswith(b"\n")
            try:
                self.places[_read_line(line)["key"]] = (start, len(line))
            except (ValueError, KeyError, TypeError, RecursionError):
                _log.warning("%s: a line at byte %d is not whole; its work is done again", self.path, start)
            start += len(line)
        if not whole:
            self.file.write(b"\n")
            self.file.flush()
            start += 1
        return start

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __contains__(self, key: str) -> bool:
        return key in self.places

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, key: str) -> Any:
        """Raises `KeyError` when it is not there, and `UserError` when the line was changed since it was found."""
        start, size = self.places[key]
        try:
            return _read_line(os.pread(self.file.fileno(), size, start))["value"]
        except ValueError as error:
            raise UserError(
                f"{self.path}: the line at byte {start} was changed meanwhile; run the same command again"
            ) from error

    def add(self, key: str, value: Any) -> None:
        """Raises `OSError` when the disk takes no more."""
        whole = json.dumps({"key": key, "value": value}, ensure_ascii=False).encode("utf-8", "surrogatepass")
        line = whole[:-1] + _SUM + _sum(whole[:-1]) + _END
        self.file.write(line)
        self.file.flush()
        self.places[key] = (self.end, len(line))
        self.end += len(line)
        if time.monotonic() - self.synced >= _SYNC_SECONDS:
            self.sync()

    def sync(self) -> None:
        """Let the disk have everything."""
        os.fsync(self.file.fileno())
        self.synced = time.monotonic()

    def close(self) -> None:
        """Sync, and let other processes have the file."""
        self.sync()
        self.file.close()


def _sum(part: bytes) -> bytes:
    return hashlib.sha256(part).hexdigest()[:16].encode()


def _read_line(line: bytes) -> dict[str, Any]:
    """Raises `ValueError` for a line that is not as it was written."""
    part, _, rest = line.rpartition(_SUM)
    if rest != _sum(part) + _END:
        raise ValueError("the sum is another")
    row: dict[str, Any] = json.loads(line)
    return row
