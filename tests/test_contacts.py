"""Which hosts were contacted: seen, added up over attempts, and listed by stage."""

import subprocess
import sys
from pathlib import Path

from smallwit.network.hosts import HostLog, added, contacted

LOOK_UP = """
import socket
from contextlib import suppress
from smallwit.network import hosts
hosts.watch()
hosts.watch()
for host in ("nobody.invalid", b"nobody.invalid", "localhost", "127.0.0.1", None):
    with suppress(OSError):
        socket.getaddrinfo(host, 80)
print(hosts.lookups())
"""


def test_other_machines_that_are_looked_up_are_noticed() -> None:
    """In an interpreter of its own: what notices it cannot be taken out again."""
    done = subprocess.run([sys.executable, "-c", LOOK_UP], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "{'nobody.invalid': {'connections': 2}}"


def test_counts_of_one_host_add_up() -> None:
    assert added([{"a": {"requests": 1}}, {"a": {"requests": 2, "failed": 1}, "b": {}}]) == {
        "a": {"requests": 3, "failed": 1},
        "b": {},
    }


def test_an_attempt_adds_to_what_earlier_ones_did(tmp_path: Path) -> None:
    for _ in range(2):
        log = HostLog(tmp_path / "stages" / "03-answers" / "hosts.json", lambda: {"a": {"requests": 2}})
        log.write()
        log.write()
    HostLog(tmp_path / "lookups.json", lambda: {"hub": {"connections": 1}}).write()
    assert contacted(tmp_path) == [
        {"stage": "", "host": "hub", "connections": 1},
        {"stage": "answers", "host": "a", "requests": 4},
    ]


def test_without_contacts_there_is_no_file(tmp_path: Path) -> None:
    HostLog(tmp_path / "hosts.json", dict).write()
    assert list(tmp_path.iterdir()) == []
