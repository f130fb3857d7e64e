"""A journal of finished work, such as replies of models: after an interruption it is not done again."""

import hashlib
import json
import logging
import time
from pathlib import Path
from typing import Any

from smallwit.errors import UserError
from smallwit.storage.append_log import AppendLog

_SYNC_SECONDS = 1.0
_SUM, _END = b', "sum": "', b'"}\n'
_log = logging.getLogger(__name__)


class Journal:
    """JSON data by key, in an append-only file of lines `{"key": ..., "value": ..., "sum": ...}`. A context manager.

    A key is a text, such as a `content_key` of all that the value depends on. Memory holds only the places of lines.

    A line that was cut off (by a kill or a full disk) or changed (`sum` is of the bytes before it) is ignored with a
    warning. A kill loses no line, a power cut the lines of a second.
    """

    def __init__(self, path: Path) -> None:
        """Open the file, or make it. Raises `UserError` when another process has it, or it cannot be written."""
        self.path = path
        self.places: dict[str, tuple[int, int]] = {}
        self._lines = AppendLog(path)
        self._end = 0
        for start, line in self._lines.lines():
            try:
                self.places[_read_line(line)["key"]] = (start, len(line))
            except (ValueError, KeyError, TypeError, RecursionError):
                _log.warning("%s: a line at byte %d is not whole; its work is done again", path, start)
            if line.endswith(b"\n"):
                self._end = start + len(line)
        self._lines.rewind(self._end)
        self._synced = time.monotonic()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __contains__(self, key: str) -> bool:
        return key in self.places

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, key: str) -> Any:
        """Return the value. Raises `KeyError` where there is none, and `UserError` when its line was changed since."""
        start, size = self.places[key]
        try:
            return _read_line(self._lines.read(start, size))["value"]
        except ValueError as error:
            raise UserError(
                f"{self.path}: the line at byte {start} was changed meanwhile; run the same command again"
            ) from error

    def add(self, key: str, value: Any) -> None:
        """Append a value. Raises `OSError` when the disk is full."""
        whole = json.dumps({"key": key, "value": value}, ensure_ascii=False).encode("utf-8", "surrogatepass")
        line = whole[:-1] + _SUM + _sum(whole[:-1]) + _END
        self._lines.append(line)
        self.places[key] = (self._end, len(line))
        self._end += len(line)
        if time.monotonic() - self._synced >= _SYNC_SECONDS:
            self.sync()

    def sync(self) -> None:
        """Wait until the disk has everything."""
        self._lines.sync()
        self._synced = time.monotonic()

    def close(self) -> None:
        """Sync the file and close it; other processes may open it then."""
        self.sync()
        self._lines.close()


def _sum(part: bytes) -> bytes:
    return hashlib.sha256(part).hexdigest()[:16].encode()


def _read_line(line: bytes) -> dict[str, Any]:
    """Return the row of a line. Raises `ValueError` for a line that is not as it was written."""
    part, _, rest = line.rpartition(_SUM)
    if rest != _sum(part) + _END:
        raise ValueError("its sum differs from its content")
    row: dict[str, Any] = json.loads(line)
    return row
