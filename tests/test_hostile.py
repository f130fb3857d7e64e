"""Programs against the kernel, the interpreter and the protocol: for root, an ordinary user, and without namespaces."""

import json
import os
import socket
import stat
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from hostile_programs_frames import FRAMES
from hostile_programs_kernel import DOORS, HARMLESS
from hostile_programs_python import INTERPRETER

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="these programs are for Linux")
HERE = Path(__file__).parent


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Path]:
    """A folder of the host with a file and a socket in it, which must be as they were afterwards."""
    folder = tmp_path / "host"
    folder.mkdir()
    folder.chmod(0o777)
    secret = folder / "secret"
    secret.write_text("secret")
    secret.chmod(0o666)
    before = state(secret)
    with (
        closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as by_path,
        closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as by_name,
    ):
        by_path.bind(str(folder / "datagrams"))
        by_name.bind(f"\0{folder}")
        yield folder
        for listener in (by_path, by_name):
            listener.setblocking(False)
            with pytest.raises(BlockingIOError):
                listener.recv(100)
    assert state(secret) == before
    assert sorted(path.name for path in folder.iterdir()) == ["datagrams", "secret"]


def state(file: Path) -> tuple[Any, ...]:
    found = file.stat()
    return file.read_text(), stat.S_IMODE(found.st_mode), found.st_mtime_ns, found.st_ctime_ns, os.listxattr(file)


def judged(who: str, way: str, host: Path, *tables: str, **environment: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, str(HERE / "hostile_judge.py"), who, way, str(host), *tables],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        cwd=HERE,
    )
    if done.returncode and "unshare" in done.stderr:
        pytest.skip("this machine offers no user namespaces")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def wrong(found: dict[str, Any]) -> list[list[Any]]:
    """The verdicts that should be others."""
    right = {"honest": [(1.0, "correct")]}
    expected = [(0.0, "wrong"), (0.0, "limit")]
    return [row for row in found["verdicts"] if tuple(row[3:]) not in right.get(row[0], expected)]


SETTINGS = {
    "the best way": ("as-is", "auto"),
    "no namespaces": ("as-is", "none"),
    "an ordinary user": ("ordinary", "auto"),
    "an ordinary user, no namespaces": ("ordinary", "none"),
}


@pytest.mark.slow
@pytest.mark.parametrize("setting", SETTINGS)
def test_no_door_of_the_kernel_is_open(setting: str, host: Path) -> None:
    who, way = SETTINGS[setting]
    found = judged(who, way, host, "doors")
    assert found["user"] == (1000 if who == "ordinary" else os.geteuid())
    assert wrong(found) == []


@pytest.mark.slow
def test_nothing_in_the_interpreter_or_on_the_socket_makes_a_wrong_program_right(host: Path) -> None:
    assert wrong(judged("as-is", "auto", host, "frames", "interpreter", "slow")) == []


@pytest.mark.slow
def test_what_a_program_leaves_is_gone_before_the_next_one(host: Path, tmp_path: Path) -> None:
    found = judged("ordinary", "none", host, "leftovers", TMPDIR=str(tmp_path))
    assert found["level"] == "rlimits"
    assert wrong(found) == []
    assert list(tmp_path.glob("smallwit-*")) == []


def test_the_programs_are_many_and_their_own() -> None:
    assert len(DOORS) >= 60
    assert len(INTERPRETER) >= 60
    assert max(Counter([*DOORS.values(), *FRAMES.values(), *INTERPRETER.values()]).values()) == 1


@pytest.mark.slow
def test_the_attempts_go_through_where_nothing_holds_them(tmp_path: Path) -> None:
    """Or their failing in the sandbox would say nothing of it."""
    (tmp_path / "secret").write_text("secret")
    shut = []
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as listener:
        listener.bind(str(tmp_path / "datagrams"))
        for name in HARMLESS:
            source = textwrap.dedent(DOORS[name]).replace("HOST", str(tmp_path))
            script = f"{source}\nimport sys\nsys.exit(f(1, 2) != 3)"
            shut += [name] if subprocess.run([sys.executable, "-c", script], cwd=tmp_path).returncode else []
    assert shut == []
