"""The sandbox on machines of other kinds: other processors, refused calls, other folders, servers that are killed."""

import errno
import os
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from smallwit.verify import code
from smallwit.verify.code import CodeJob, judge_code
from smallwit.verify.sandbox import pool
from smallwit.verify.sandbox.seccomp import filter_program

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="these layers are Linux's")
HONEST = "def f(a, b):\n    return a + b\n"


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """No server and no verdict from before, and none for what comes after."""
    code.close()
    code._verdicts.clear()
    monkeypatch.setattr(pool, "_ways", list(pool._ways))
    yield monkeypatch
    code.close()


def answer(program: bytes, machine: int, number: int, *arguments: int) -> int:
    """What a filter answers to a call: 0 if it goes through, else an errno."""
    data = struct.pack("=IIQ6Q", number, machine, 0, *[*arguments, 0, 0, 0, 0, 0, 0][:6])
    operations, at, loaded = list(struct.iter_unpack("=HBBI", program)), 0, 0
    while True:
        kind, if_true, if_false, value = operations[at]
        at += 1
        if kind == 0x06:
            return 0 if value == 0x7FFF0000 else value & 0xFFFF
        if kind == 0x20:
            (loaded,) = struct.unpack_from("=I", data, value)
        elif kind == 0x54:
            loaded &= value
        else:
            holds = {0x15: loaded == value, 0x35: loaded >= value, 0x45: loaded & value}[kind]
            at += if_true if holds else if_false


# (x86_64, aarch64), arguments, the answer.
CALLS = {
    "read": ((0, 63), (), 0),
    "thread": ((56, 220), (0x3D0F00,), 0),
    "fork": ((56, 220), (17,), errno.EPERM),
    "clone3": ((435, 435), (), errno.ENOSYS),
    "mmap": ((9, 222), (0, 4096, 3, 0x22), 0),
    "vmsplice": ((278, 75), (), errno.EPERM),
    "splice": ((275, 76), (), errno.EPERM),
    "tee": ((276, 77), (), errno.EPERM),
    "memfd_create": ((319, 279), (), errno.EPERM),
    "io_setup": ((206, 0), (), errno.EPERM),
    "io_uring_setup": ((425, 425), (), errno.ENOSYS),
    "setsockopt": ((54, 208), (), errno.EPERM),
    "socket": ((41, 198), (), errno.EPERM),
    "F_SETPIPE_SZ": ((72, 25), (3, 1031), errno.EPERM),
    "F_GETFL": ((72, 25), (3, 3), 0),
    "flock": ((73, 32), (), errno.EPERM),
    "SIOCGIFCONF": ((16, 29), (3, 0x8912), errno.EPERM),
    "FIONBIO": ((16, 29), (3, 0x5421), 0),
    "sendfile": ((40, 71), (), errno.ENOTSOCK),
    "32-bit numbers": ((0x40000000, 0x40000000), (), errno.ENOSYS),
}


@pytest.mark.parametrize(("column", "name", "machine"), [(0, "x86_64", 0xC000003E), (1, "aarch64", 0xC00000B7)])
def test_the_filter_lets_through_what_is_on_its_list_and_nothing_else(
    column: int, name: str, machine: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine=name))
    program = filter_program(host_in_sight=False)
    assert program is not None
    got = {call: answer(program, machine, numbers[column], *given) for call, (numbers, given, _) in CALLS.items()}
    assert got == {call: right for call, (_, _, right) in CALLS.items()}
    assert sum(answer(program, machine, number) == 0 for number in range(600)) < 170


def test_where_setns_is_refused_programs_are_judged_by_what_is_left() -> None:
    script = f"""
import os, struct
from smallwit.verify.sandbox import linux
number = 268 if os.uname().machine == "aarch64" else 308
operations = ((0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, 0x50001), (0x06, 0, 0, 0x7FFF0000))
linux._call("prctl", 38, linux.ctypes.c_ulong(1), 0, 0, 0)  # no new privileges: then anybody may have a filter
linux.install_filter(b"".join(struct.pack("=HBBI", *operation) for operation in operations))
from smallwit.verify import code
print(code.judge_code([code.CodeJob("", "f", {HONEST!r}, cases=[((1, 2), 3)])])[0].reason)
code.close()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout == "correct\n", done.stderr


NUMPY_TESTS = [
    "import math, numpy as np\nnp.testing.assert_equal(f(1, 2), 3)",
    "import math; import numpy\nassert numpy.random.RandomState(f(1, 2)) and numpy.fft.fft([f(1, 2)])[0] == 3",
]


@pytest.mark.parametrize("tests", NUMPY_TESTS)
def test_numpy_is_there_for_tests_whatever_was_loaded_before(tests: str, fresh: pytest.MonkeyPatch) -> None:
    """Without namespaces and as root, what is not loaded may be out of reach."""
    fresh.setattr(pool, "_ways", ["none"])
    assert judge_code([CodeJob("", "f", HONEST, tests=tests)], workers=1)[0].reason == "correct"


def test_packages_in_a_folder_for_temporary_files_are_there_for_tests(fresh: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        package = Path(folder, "numpy")
        package.mkdir()
        for name in ("__init__", "testing", "random", "fft", "ma", "polynomial"):
            package.joinpath(f"{name}.py").write_text("three = 3")
        Path(folder).chmod(0o755)
        fresh.setattr(pool, "_numpy_folder", lambda: folder)
        tests = "import numpy.testing\nassert f(1, 2) == numpy.testing.three"
        assert judge_code([CodeJob("", "f", HONEST, tests=tests)], workers=1)[0].reason == "correct"
        code.close()


def test_a_kill_leaves_no_folder(tmp_path: Path) -> None:
    """The servers' own end removes theirs, the next start those of servers that were killed too."""
    left = tmp_path / "smallwit-judge-left"
    left.joinpath("deep", "er").mkdir(parents=True)
    os.utime(left, (0, 0))
    script = (
        "import time\nfrom smallwit.verify import code\nfrom smallwit.verify.sandbox import pool\n"
        "pool._ways[:] = ['none']\ncode.isolation_level()\nprint('started', flush=True)\ntime.sleep(60)\n"
    )
    judge = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, env=os.environ | {"TMPDIR": str(tmp_path)}
    )
    assert judge.stdout is not None
    assert judge.stdout.readline() == b"started\n"
    made = [path for path in tmp_path.iterdir() if path != left]
    assert len(made) == 1
    assert not left.exists()
    judge.send_signal(signal.SIGKILL)
    judge.wait()
    judge.stdout.close()
    end = time.monotonic() + 10
    while made[0].exists() and time.monotonic() < end:
        time.sleep(0.02)
    assert not made[0].exists()
