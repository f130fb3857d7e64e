"""Which hosts a stage has sent requests to, and how much: `hosts.json` in its folder, over all its attempts."""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from smallwit.artifacts import write_atomically
from smallwit.ledger import HOSTS_FILE
from smallwit.rollout.endpoint_client import Traffic

_WRITE_SECONDS = 1.0


class HostLog:
    """Adds what this attempt sends to what earlier ones have sent."""

    def __init__(self, folder: Path, traffic: Mapping[str, Traffic]) -> None:
        """`traffic` by host, which the client that sends keeps up to date. Several clients may share the file."""
        self.path, self.traffic = folder / HOSTS_FILE, traffic
        self.counted: dict[str, dict[str, int]] = {}
        self.written = 0.0

    def tick(self) -> None:
        """Called often: writes now and then, so that an attempt that is killed is not forgotten."""
        if time.monotonic() - self.written >= _WRITE_SECONDS:
            self.write()

    def write(self) -> None:
        """Add what was sent since the last time, in one step."""
        hosts: dict[str, dict[str, int]] = json.loads(self.path.read_text()) if self.path.is_file() else {}
        for host, traffic in self.traffic.items():
            known, counted, now = hosts.setdefault(host, {}), self.counted.get(host, {}), asdict(traffic)
            for name, count in now.items():
                known[name] = known.get(name, 0) + count - counted.get(name, 0)
            self.counted[host] = now
        write_atomically(self.path, json.dumps(hosts, indent=1))
        self.written = time.monotonic()
