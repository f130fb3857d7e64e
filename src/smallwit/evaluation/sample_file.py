"""The samples of an evaluation on disk: one JSON line each, written as soon as it is graded."""

import hashlib
import json
import logging
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

from smallwit.evaluation.runner import Key, Row
from smallwit.storage.append_log import AppendLog
from smallwit.storage.jsonl import json_line

_log = logging.getLogger(__name__)


class SampleFile:
    """`TASK.jsonl`, and `.TASK.sums` with a sum of each of its lines. A context manager.

    Opening it reads the rows. An unfinished last line, left by a killed process, is cut off. A line that was changed,
    which its sum shows, is ignored with a warning. Raises `UserError` for what is no ordinary file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: dict[Key, Row] = {}
        sums = path.with_name(f".{path.stem}.sums")
        with_sums = sums.exists()
        with ExitStack() as opened:
            self._samples = opened.enter_context(AppendLog(path))
            self._sums = opened.enter_context(AppendLog(sums))
            lines = [line for _, line in self._samples.lines()]
            kept = self._unchanged([line for line in lines if line.endswith(b"\n")], with_sums)
            for line in kept:
                row = json.loads(line)
                self.rows.setdefault((row["id"], row["sample"]), row)
            self._rewrite(kept, changed=kept != lines)
            opened.pop_all()

    def _unchanged(self, lines: list[bytes], with_sums: bool) -> list[bytes]:
        if not with_sums:
            if lines:
                _log.warning("%s: %d samples of an earlier version are taken as they are", self.path, len(lines))
            return [line for line in lines if self._is_row(line)]
        known = Counter(line.strip() for _, line in self._sums.lines())
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

    def _rewrite(self, lines: list[bytes], changed: bool) -> None:
        """Make the files hold just these lines. The sums come first, as a line without a sum is ignored."""
        self._sums.replace([_sum(line) + b"\n" for line in lines])
        if changed:
            self._samples.replace(lines)

    def __enter__(self) -> "SampleFile":
        return self

    def __exit__(self, *error: object) -> None:
        self._samples.close()
        self._sums.close()

    def add(self, row: Row) -> None:
        """Append a row; it replaces an earlier row with the same problem and sample number."""
        self.rows[row["id"], row["sample"]] = row
        line = _line(row)
        self._sums.append(_sum(line) + b"\n")
        self._samples.append(line)

    def settle(self, order: list[Key]) -> list[Row]:
        """Return the rows in this order, and make the file hold just these."""
        rows = [self.rows[key] for key in order]
        lines = [_line(row) for row in rows]
        self._rewrite(lines, changed=[line for _, line in self._samples.lines()] != lines)
        return rows


def _line(row: Row) -> bytes:
    return json_line(row).encode() + b"\n"


def _sum(line: bytes) -> bytes:
    return hashlib.sha256(line).hexdigest()[:16].encode()
