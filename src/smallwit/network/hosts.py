"""Log the hosts that a run contacts, in files in the stages' folders, over all attempts.

Requests to endpoints are counted with their bytes (`hosts.json`). An audit hook (PEP 578) counts the name lookups of
other libraries, for example for downloads from the Hugging Face hub: connections of unknown size (`lookups.json`). The
hook does not see native code (hf-xet).
"""

import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from smallwit.errors import UserError
from smallwit.network.offline import is_local_host
from smallwit.storage.artifacts import read_sealed, write_sealed

REQUESTS_FILE, LOOKUPS_FILE = "hosts.json", "lookups.json"
_WRITE_SECONDS = 1.0
_looked_up: Counter[str] = Counter()
_watching = False

Counts = Mapping[str, Mapping[str, int]]


def watch() -> None:
    """Count the host names that this process looks up from now on. This cannot be undone."""
    global _watching
    if not _watching:
        sys.addaudithook(_on_audit_event)
        _watching = True


def _on_audit_event(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "socket.getaddrinfo" and isinstance(arguments[0], str | bytes) and not is_local_host(arguments[0]):
        _looked_up[os.fsdecode(arguments[0])] += 1


def lookups() -> Counts:
    """Return the hosts that this process has looked up since `watch`, with counts."""
    return {host: {"connections": count} for host, count in _looked_up.items()}


def added(several: Iterable[Counts]) -> dict[str, dict[str, int]]:
    """Return the sum of several counts."""
    hosts: dict[str, dict[str, int]] = {}
    for each in several:
        for host, counts in each.items():
            known = hosts.setdefault(host, {})
            for name, count in counts.items():
                known[name] = known.get(name, 0) + count
    return hosts


class HostLog:
    """A log that adds the counts of this attempt to a file. `counts` returns them by host since the attempt's start.

    Several logs of one process may share a file.
    """

    def __init__(self, path: Path, counts: Callable[[], Counts]) -> None:
        self.path, self.counts = path, counts
        self.told: Counts = {}
        self.written = 0.0

    def tick(self) -> None:
        """Write the file if the last write is a second ago, so that a killed attempt is in it too."""
        if time.monotonic() - self.written >= _WRITE_SECONDS:
            self.write()

    def write(self) -> None:
        """Write the file in one step, if there is something new."""
        now = added([self.counts()])
        news = added([now, _negative(self.told)])
        if any(any(counts.values()) for counts in news.values()):
            before = _read(self.path) if self.path.is_file() else {}
            write_sealed(self.path, {"hosts": added([before, news])})
        self.told, self.written = now, time.monotonic()


def _read(path: Path) -> Counts:
    """Return the counts of a file. Raises `UserError` if it was changed since it was written."""
    try:
        hosts: Counts = read_sealed(path)["hosts"]
    except (ValueError, KeyError) as error:
        what = "was changed since it was written"
        raise UserError(f"{path}: {what}; delete it, only counts of requests are lost") from error
    return hosts


def _negative(counts: Counts) -> Counts:
    return {host: {name: -count for name, count in each.items()} for host, each in counts.items()}


def contacted(run: Path) -> list[dict[str, Any]]:
    """Return the hosts that each stage of a run has contacted, and the run itself (stage "").

    A host has `requests` (`failed` of them), `bytes_sent` and `bytes_received`, or only `connections` if no more is
    known. Raises `UserError` if one of the files was changed since it was written.
    """
    rows = []
    for file in sorted(
        [*run.glob(f"stages/*/{REQUESTS_FILE}"), *run.glob(LOOKUPS_FILE), *run.glob(f"stages/*/{LOOKUPS_FILE}")]
    ):
        stage = file.parent.name.partition("-")[2] if file.parent != run else ""
        rows += [{"stage": stage, "host": host, **counts} for host, counts in _read(file).items()]
    return rows
