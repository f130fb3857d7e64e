"""The samples of an evaluation on disk: one JSON line each, written as soon as it is graded."""

import json
import os
from pathlib import Path
from types import TracebackType

from smallwit.artifacts import write_atomically
from smallwit.evaluation.runner import Key, Row


class SampleFile:
    """`TASK.jsonl`. Opening it reads what is there and cuts off a line that a killed process left unfinished."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: dict[Key, Row] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+b")
        self._file.seek(0)
        end = 0
        for line in self._file:
            if not line.endswith(b"\n"):
                break
            row = json.loads(line)
            self.rows.setdefault((row["id"], row["sample"]), row)
            end += len(line)
        self._file.truncate(end)

    def __enter__(self) -> "SampleFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, row: Row) -> None:
        """Write a row; one with the same problem and sample number takes the place of the one before."""
        self.rows[row["id"], row["sample"]] = row
        # In one piece, past Python's buffer: a killed process leaves whole lines, and at most one unfinished.
        os.write(self._file.fileno(), _line(row).encode())

    def settle(self, order: list[Key]) -> list[Row]:
        """The rows in this order; the file is made to hold just these."""
        rows = [self.rows[key] for key in order]
        text = "".join(map(_line, rows))
        if self.path.read_text(encoding="utf-8") != text:
            write_atomically(self.path, text)
        return rows


def _line(row: Row) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"
