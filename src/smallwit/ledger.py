"""What a run cost, stage by stage, and the wall time of the attempts that made it."""

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from smallwit.artifacts import write_atomically
from smallwit.errors import UserError

HOSTS_FILE = "hosts.json"
"""In a stage's folder: requests and bytes by host, over all attempts, finished or not."""
WRITE_SECONDS = 5.0


@dataclass(frozen=True)
class Entry:
    """The cost of one stage when it was first computed. FLOPs count 2 for a multiply-add; memory is in 1e9 bytes."""

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


class Ledger:
    """`ledger.json` of a run: the stages' costs, what each sent to which host, each attempt's wall time and memory."""

    def __init__(self, path: Path) -> None:
        """`path` is in the folder that has the stages' own in `stages/`. Raises `UserError` when it is no ledger."""
        self.path = path
        self.attempts: list[dict[str, Any]] = []
        if path.is_file():
            try:
                self.attempts = json.loads(path.read_text()).get("attempts", [])
            except (ValueError, AttributeError) as error:
                raise UserError(f"{path}: is not a ledger; delete it, only the times in it are lost") from error
        self.started = self.written = time.monotonic()
        self.attempt: dict[str, Any] = {"seconds": 0.0, "peak_memory_gb": 0.0, "computed": []}

    def begin(self, key: str) -> None:
        """The present attempt works on the node with this key."""
        self.attempt["computed"].append(key)

    def note(self, peak_memory_gb: float) -> None:
        """So far the present attempt has taken this much memory, and the time since it began."""
        self.attempt["seconds"] = time.monotonic() - self.started
        self.attempt["peak_memory_gb"] = max(self.attempt["peak_memory_gb"], peak_memory_gb)

    def tick(self, peak_memory_gb: float, entries: list[Entry]) -> None:
        """Called often: writes now and then, so that an attempt that is killed is not forgotten."""
        if time.monotonic() - self.written >= WRITE_SECONDS:
            self.note(peak_memory_gb)
            self.write(entries)

    def totals(self, keys: set[str]) -> tuple[float, float]:
        """Wall seconds and peak memory of the attempts that worked on any of `keys`: a cached rerun shrinks neither."""
        counted = [a for a in [*self.attempts, self.attempt] if keys & set(a["computed"])]
        return sum(a["seconds"] for a in counted), max((a["peak_memory_gb"] for a in counted), default=0.0)

    def hosts(self) -> dict[str, dict[str, dict[str, int]]]:
        """For each stage that contacted any, the hosts: requests (and those that failed), bytes sent and received."""
        files = sorted(self.path.parent.glob(f"stages/*/{HOSTS_FILE}"))
        return {file.parent.name.partition("-")[2]: json.loads(file.read_text()) for file in files}

    def write(self, entries: list[Entry]) -> None:
        """Write the file in one step."""
        attempts = [*self.attempts, *([self.attempt] if self.attempt["computed"] else [])]
        stages = [asdict(entry) for entry in entries]
        data = {"schema": 1, "stages": stages, "hosts": self.hosts(), "attempts": attempts}
        write_atomically(self.path, json.dumps(data, indent=1))
        self.written = time.monotonic()
