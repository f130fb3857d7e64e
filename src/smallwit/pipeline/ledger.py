"""The ledger of a run: the cost of each stage, and the wall time and memory of each attempt."""

import time
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from smallwit.errors import UserError
from smallwit.network.hosts import LOOKUPS_FILE, HostLog, contacted, lookups
from smallwit.pipeline.energy import EnergyMeter
from smallwit.recipe.schema import Prices
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
            "spent": {},
        }
        self.others()  # refuses a damaged file before anything runs
        contacted(path.parent)
        self.started = self.written = time.monotonic()
        self.meter = EnergyMeter()
        self._spent_until = self.started

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

    def spend(self, threads: Mapping[str, int]) -> None:
        """Share the wall time and the energy since the last call among the running nodes: keys, and their threads."""
        now, kwh = time.monotonic(), self.meter.kwh()
        passed, self._spent_until = now - self._spent_until, now
        for key, count in threads.items():
            share = count / sum(threads.values())
            spent = self.attempt["spent"].setdefault(key, {"seconds": 0.0})
            spent["seconds"] += passed * share
            if kwh is not None:
                spent["kwh"] = spent.get("kwh", 0.0) + kwh * share

    def costs(
        self, nodes: Mapping[str, str], prices: Prices | None, teacher_tokens: Mapping[str, int]
    ) -> dict[str, Any]:
        """Return what the attempts have spent on nodes, given as names and keys: seconds, kWh, dollars at these prices.

        `teacher_tokens` are those of models behind endpoints, by node. Energy counts where it was measured.
        """
        found: dict[str, dict[str, float]] = {}
        attempts = [*self.others(), self.attempt]
        for name, key in nodes.items():
            spent = [a["spent"][key] for a in attempts if key in a.get("spent", {})]
            if not spent:
                continue
            found[name] = {"seconds": sum(each["seconds"] for each in spent)}
            if any("kwh" in each for each in spent):
                found[name]["kwh"] = sum(each.get("kwh", 0.0) for each in spent)
            if prices is not None:
                tokens = teacher_tokens.get(name, 0)
                found[name]["dollars"] = prices.dollars(found[name]["seconds"], found[name].get("kwh"), tokens)
        total = {part: sum(each.get(part, 0.0) for each in found.values()) for part in ("seconds", "kwh", "dollars")}
        known = {part for each in found.values() for part in each}
        total = {part: value for part, value in total.items() if part in known}
        return {"energy": self.meter.about, "total": total, "nodes": found}

    def note(self, peak_memory_gb: float) -> None:
        """Record the peak memory of this attempt (in 1e9 bytes), and its wall time until now."""
        self.attempt["seconds"] = time.monotonic() - self.started
        self.attempt["peak_memory_gb"] = max(self.attempt["peak_memory_gb"], peak_memory_gb)

    @property
    def due(self) -> bool:
        """Whether the last write is `WRITE_SECONDS` ago: a killed attempt shall be in the file too."""
        return time.monotonic() - self.written >= WRITE_SECONDS

    def totals(self, keys: set[str]) -> tuple[float, float]:
        """Return wall seconds and peak memory of the attempts that computed any of `keys`.

        A cached rerun changes neither.
        """
        counted = [a for a in [*self.others(), self.attempt] if keys & set(a["computed"])]
        return sum(a["seconds"] for a in counted), max((a["peak_memory_gb"] for a in counted), default=0.0)

    def write(
        self, entries: list[Entry], results: dict[str, Any] | None = None, *, costs: Mapping[str, Any] | None = None
    ) -> None:
        """Write the file in one step. With `results` it holds their hash, which shows later changes of results.json."""
        attempts = [*self.others(), *([self.attempt] if self.attempt["computed"] else [])]
        stages = [{k: value for k, value in asdict(entry).items() if value is not None} for entry in entries]
        self.lookups.write()
        hosts = contacted(self.path.parent)
        data = {"schema": 1, "stages": stages, "costs": dict(costs or {}), "hosts": hosts, "attempts": attempts}
        write_sealed(self.path, data | ({"results": content_key(results)} if results is not None else {}))
        self.written = time.monotonic()
