"""The ledger of a run: the cost of each stage, and the wall time and memory of each attempt."""

import time
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from smallwit.errors import UserError
from smallwit.network.hosts import LOOKUPS_FILE, HostLog, contacted, lookups
from smallwit.storage.artifacts import content_key, read_sealed, write_sealed

WRITE_SECONDS = 5.0


@dataclass(frozen=True)
class Entry:
    """The cost of a stage when it was first computed. A multiply-add is 2 FLOPs; memory is in 1e9 bytes.

    `adopted` tells what has changed since work of another key was made that was adopted.
    """

    name: str
    kind: str
    flops: float
    cumulative_flops: float
    seconds: float
    peak_memory_gb: float
    tokens: int
    teacher_tokens: int
    steps: int
    cached: bool
    adopted: list[str] | None = None


class Ledger:
    """The file `ledger.json` of a run: costs of stages, traffic by host, wall time and memory of attempts."""

    def __init__(self, path: Path) -> None:
        """Read the ledger at `path`, a file in the run's folder, if it exists.

        Raises `UserError` when the file is not a ledger, or was changed since it was written.
        """
        self.path = path
        self.lookups = HostLog(path.parent / LOOKUPS_FILE, lookups)
        self.attempt: dict[str, Any] = {
            "id": uuid.uuid4().hex[:8],
            "seconds": 0.0,
            "peak_memory_gb": 0.0,
            "computed": [],
        }
        self.others()  # refuses a damaged file before anything runs
        contacted(path.parent)
        self.started = self.written = time.monotonic()

    def others(self) -> list[dict[str, Any]]:
        """Return the attempts in the file without this one. Other processes may add theirs meanwhile."""
        if not self.path.is_file():
            return []
        try:
            return [one for one in read_sealed(self.path)["attempts"] if one.get("id") != self.attempt["id"]]
        except (ValueError, KeyError) as error:
            what = "is not a ledger, or was changed since it was written"
            raise UserError(f"{self.path}: {what}; delete it (only its times are lost)") from error

    def begin(self, key: str) -> None:
        """Record that this attempt computes the node with this key."""
        self.attempt["computed"].append(key)

    def note(self, peak_memory_gb: float) -> None:
        """Record the peak memory of this attempt (in 1e9 bytes), and its wall time until now."""
        self.attempt["seconds"] = time.monotonic() - self.started
        self.attempt["peak_memory_gb"] = max(self.attempt["peak_memory_gb"], peak_memory_gb)

    def tick(self, peak_memory_gb: float, entries: list[Entry]) -> None:
        """Write the file if the last write is `WRITE_SECONDS` ago, so that a killed attempt is in it too."""
        if time.monotonic() - self.written >= WRITE_SECONDS:
            self.note(peak_memory_gb)
            self.write(entries)

    def totals(self, keys: set[str]) -> tuple[float, float]:
        """Return wall seconds and peak memory of the attempts that computed any of `keys`.

        A cached rerun changes neither.
        """
        counted = [a for a in [*self.others(), self.attempt] if keys & set(a["computed"])]
        return sum(a["seconds"] for a in counted), max((a["peak_memory_gb"] for a in counted), default=0.0)

    def write(self, entries: list[Entry], results: dict[str, Any] | None = None) -> None:
        """Write the file in one step. With `results` it holds their hash, which shows later changes of results.json."""
        attempts = [*self.others(), *([self.attempt] if self.attempt["computed"] else [])]
        stages = [{k: value for k, value in asdict(entry).items() if value is not None} for entry in entries]
        self.lookups.write()
        hosts = contacted(self.path.parent)
        data = {"schema": 1, "stages": stages, "hosts": hosts, "attempts": attempts}
        write_sealed(self.path, data | ({"results": content_key(results)} if results is not None else {}))
        self.written = time.monotonic()
