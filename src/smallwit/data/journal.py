"""A journal of finished work that must not be done twice: one JSON line a result, found again by its key."""

import json
from pathlib import Path
from types import TracebackType
from typing import Any

from smallwit.artifacts import content_key


class Journal:
    """Results by key, kept in a file that is only ever appended to. Use as a context manager.

    A key is any JSON data that says what the result depends on; of each only a hash and the place of its line are in
    memory. A process killed in the middle of a line loses that result alone.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+b")
        self._places: dict[bytes, int] = {}
        self._file.seek(0)
        whole = 0
        for line in self._file:
            if not line.endswith(b"\n"):
                break
            self._places[_digest(json.loads(line)["key"])] = whole
            whole += len(line)
        self._file.truncate(whole)

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, key: Any) -> bool:
        return _key(key) in self._places

    def __getitem__(self, key: Any) -> Any:
        """The result. Raises `KeyError` when it is not there."""
        self._file.seek(self._places[_key(key)])
        return json.loads(self._file.readline())["value"]

    def put(self, key: Any, value: Any) -> None:
        """Add a result (JSON data), and hand it to the system, which keeps it even if this process is killed."""
        line = json.dumps({"key": content_key(key), "value": value}, ensure_ascii=False) + "\n"
        place = self._file.seek(0, 2)
        self._file.write(line.encode())
        self._file.flush()
        self._places[_key(key)] = place


def _key(key: Any) -> bytes:
    return _digest(content_key(key))


def _digest(key: str) -> bytes:
    return bytes.fromhex(key)
