"""The samples of an evaluation on disk: one JSON line each, written as soon as it is graded."""

import hashlib
import json
import logging
import os
from collections import Counter
from pathlib import Path
from types import TracebackType

from smallwit.errors import UserError
from smallwit.evaluation.runner import Key, Row
from smallwit.storage.artifacts import open_own, write_atomically
from smallwit.storage.jsonl import json_line

_log = logging.getLogger(__name__)


class SampleFile:
    """`TASK.jsonl`, and `.TASK.sums` with a sum of each of its lines.

    Opening it reads what is there. A line that a killed process left unfinished is cut off; one that was changed, which
    its sum tells, is said and counts as not there.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.sums = path, path.with_name(f".{path.stem}.sums")
        self.rows: dict[Key, Row] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        for file in (path, self.sums):
            _refuse_link(file)
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        whole = [line for line in lines if line.endswith(b"\n")]
        kept = self._unchanged(whole)
        for line in kept:
            row = json.loads(line)
            self.rows.setdefault((row["id"], row["sample"]), row)
        self._rewrite(kept, changed=kept != lines)
        self._file, self._sums = open_own(path), open_own(self.sums)

    def _unchanged(self, lines: list[bytes]) -> list[bytes]:
        if not self.sums.exists():
            if lines:
                _log.warning("%s: %d samples of an earlier version are taken as they are", self.path, len(lines))
            return [line for line in lines if self._is_row(line)]
        known = Counter(self.sums.read_bytes().split())
        kept = []
        for line in lines:
            if known[_sum(line)] > 0 and self._is_row(line):
                known[_sum(line)] -= 1
                kept.append(line)
        if len(kept) < len(lines):
            left_out = len(lines) - len(kept)
            _log.warning("%s: %d lines are not as they were written; they are measured again", self.path, left_out)
        return kept

    def _is_row(self, line: bytes) -> bool:
        try:
            row = json.loads(line)
            return isinstance(row["id"], str) and isinstance(row["sample"], int)
        except (ValueError, KeyError, TypeError, RecursionError):
            _log.warning("%s: a line is no sample (%r); it is measured again", self.path, line[:60])
            return False

    def _rewrite(self, lines: list[bytes], changed: bool = True) -> None:
        """Make the files hold just these lines. The sums are there first: a line without one is not believed."""
        write_atomically(self.sums, "".join(f"{_sum(line).decode()}\n" for line in lines))
        if changed:
            write_atomically(self.path, b"".join(lines).decode("utf-8"))

    def __enter__(self) -> "SampleFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._sums.close()

    def add(self, row: Row) -> None:
        """Write a row; one with the same problem and sample number takes the place of the one before."""
        self.rows[row["id"], row["sample"]] = row
        line = _line(row).encode()
        # In one piece, past Python's buffer: a killed process leaves whole lines, and at most one unfinished.
        os.write(self._sums.fileno(), _sum(line) + b"\n")
        os.write(self._file.fileno(), line)

    def settle(self, order: list[Key]) -> list[Row]:
        """The rows in this order; the file is made to hold just these."""
        rows = [self.rows[key] for key in order]
        lines = [_line(row).encode() for row in rows]
        self._rewrite(lines, changed=self.path.read_bytes() != b"".join(lines))
        return rows


def _refuse_link(path: Path) -> None:
    """Raises `UserError` for what is there and is no ordinary file: neither read nor replaced."""
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise UserError(f"{path}: is no ordinary file, such as an evaluation writes; remove it")


def _line(row: Row) -> str:
    return json_line(row) + "\n"


def _sum(line: bytes) -> bytes:
    return hashlib.sha256(line).hexdigest()[:16].encode()
