"""Trackio: a database on this machine. `trackio show --project RUN` draws it.

`trackio.init` asks the hub for the user's name where a token is stored, and sends all to a Space or a server that an
environment variable names. So its database is written directly: nothing leaves the machine.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from smallwit.storage.artifacts import content_key
from smallwit.training.tracking import Tracker, scalars

WRITE_SECONDS = 1.0
"""Steps of so many seconds are written together: a transaction takes some milliseconds."""


class Trackio(Tracker):
    """Writes to the project that is named as the folder of the run, one run a stage."""

    name = "trackio"
    package = "trackio"

    def __init__(self, run_dir: Path, stage: str, key: str) -> None:
        self.project, self.stage = run_dir.name, stage
        # Runs of one name in other places are others, and so is the stage of a changed recipe.
        self.run = content_key([str(run_dir), stage, key])
        self.held: list[Mapping[str, Any]] = []
        self.written = time.monotonic()

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self.held += rows
        if time.monotonic() - self.written >= WRITE_SECONDS:
            self._flush()

    def close(self) -> None:
        self._flush()

    def _flush(self) -> None:
        from trackio.sqlite_storage import SQLiteStorage

        # The database ignores a row whose log_id it has.
        SQLiteStorage.bulk_log(
            self.project,
            self.stage,
            [scalars(row) for row in self.held],
            steps=[row["step"] for row in self.held],
            log_ids=[f"{self.run}-{row['step']}" for row in self.held],
            run_id=self.run,
        )
        self.held, self.written = [], time.monotonic()
