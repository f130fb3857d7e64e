"""The sandbox: hostile programs, isolation, and the life of the servers."""

import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time

import psutil
import pytest

from hostile_programs import HOSTILE, SLOW
from hostile_programs_more import CUNNING, SLOW_CUNNING, WEAK_TESTS
from smallwit.verify import code
from smallwit.verify.code import CodeJob, isolation_level, judge_code
from smallwit.verify.sandbox.isolation import LEVELS
from smallwit.verify.sandbox.pool import RefusedError, Server
from smallwit.verify.verdict import Verdict

HONEST = "def f(a, b):\n    return a + b\n"
CASES = [((1, 2), 3), ((2, 5), 7)]
TESTS = ["assert f(1, 2) == 3", "assert f(2, 5) == 7"]
LIMIT = 0.5  # CPU seconds
PROGRAMS = HOSTILE | CUNNING
UNHURRIED = {*SLOW, *SLOW_CUNNING}


@pytest.fixture(autouse=True)
def _forget_verdicts() -> None:
    code._verdicts.clear()


def servers() -> list[psutil.Process]:
    """The fork servers and all that runs under them (the test process may have other children)."""
    pool = code.POOL.pool
    found = [server.process.pid for worker in pool.workers for server in worker.servers.values()] if pool else []
    return [
        process for pid in found for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    ]


def honest() -> CodeJob:
    return CodeJob("", "f", HONEST + f"# {random.random()}\n", cases=CASES, tests=TESTS)


@pytest.mark.parametrize("way", ["cases", "tests"])
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in UNHURRIED else []) for name in PROGRAMS]
)
def test_hostile_program_scores_zero_in_time_and_disturbs_nobody(name: str, way: str, tmp_path) -> None:
    tmp_path.chmod(0o777)
    source = textwrap.dedent(PROGRAMS[name]).replace("HOST", str(tmp_path))
    job = CodeJob("", "f", source, cases=CASES) if way == "cases" else CodeJob("", "f", source, tests=TESTS)
    assert judge_code([honest()], workers=1)[0].score == 1.0
    before = servers()
    start = time.monotonic()
    bad, good = judge_code([job, honest()], cpu_seconds=LIMIT, workers=1)
    assert time.monotonic() - start < 2 * LIMIT + 2 + 2
    assert (bad.score, bad.strict) == (0.0, 0.0)
    assert bad.reason in ("wrong", "limit")
    assert good == Verdict(1.0, 1.0, good.answer, "correct")
    assert not list(tmp_path.iterdir())
    assert servers() == before  # the same ones, and nothing else is left


@pytest.mark.slow
@pytest.mark.parametrize("name", WEAK_TESTS)
def test_no_hostile_program_passes_weak_tests(name: str) -> None:
    tests = textwrap.dedent(WEAK_TESTS[name])
    sources = {name: textwrap.dedent(source) for name, source in PROGRAMS.items() if name not in UNHURRIED}
    verdicts = judge_code([CodeJob("", "f", source, tests=tests) for source in sources.values()], cpu_seconds=LIMIT)
    assert {name: v.reason for name, v in zip(sources, verdicts, strict=True) if v.score != 0.0} == {}
    assert judge_code([CodeJob("", "f", HONEST, tests=tests)])[0].score == 1.0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["endless loop", "memory bomb", "sleep", "large result", "endless frame", "stack"])
def test_over_a_limit_is_called_limit(name: str) -> None:
    job = CodeJob("", "f", textwrap.dedent(HOSTILE[name]), tests=TESTS)
    assert judge_code([job], cpu_seconds=LIMIT)[0].reason == "limit"


def test_candidate_sees_no_host() -> None:
    if isolation_level() == "rlimits":
        pytest.skip("this machine offers no namespaces")
    source = """
    def f():
        import os
        return [sorted(os.environ), os.getpid(), os.listdir("."), os.path.exists("/proc/self"), os.path.exists("/home"),
                [i for i in range(3, 64) if os.path.exists(f"/dev/fd/{i}")], os.getuid() == 0]
    """
    expected = [[], 1, [], False, False, [], False]
    assert judge_code([CodeJob("", "f", textwrap.dedent(source), cases=[((), expected)])])[0].score == 1.0


def available() -> int:
    """Bytes that the machine has left, whoever holds the others."""
    return psutil.virtual_memory().available


def test_no_program_takes_more_of_the_machine_than_its_limit() -> None:
    """Seen on the machine: pages in pipes are in no process's memory."""
    if isolation_level() != "seccomp" or available() < 6 << 30:
        pytest.skip("this machine has no filter of system calls, or too little memory to see it")
    source = """
    import ctypes, fcntl, mmap, os, struct, time
    number = 75 if os.uname().machine == "aarch64" else 278
    call, size, pipes = ctypes.CDLL(None).syscall, 1 << 21, []
    for _ in range(16):
        pipes.append(os.pipe())
        for _ in range(64):  # a page of 2 MiB for a byte of each
            pages = mmap.mmap(-1, 2 * size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            pages.madvise(mmap.MADV_HUGEPAGE)
            start = -(-ctypes.addressof(ctypes.c_char.from_buffer(pages)) // size) * size
            ctypes.memset(start, 1, 1)
            fcntl.fcntl(pipes[-1][1], 1031, 1 << 18)
            if call(number, pipes[-1][1], struct.pack("QQ", start, 1), ctypes.c_long(1), 0) != 1: raise OSError
            del pages
    time.sleep(1)
    """
    before, least = available(), [available()]
    job = CodeJob("", "f", textwrap.dedent(source) + "def f(a, b): return 0\n", cases=CASES)
    judging = threading.Thread(target=judge_code, args=([job],), kwargs={"cpu_seconds": 10.0, "workers": 1})
    judging.start()
    while judging.is_alive():
        least.append(available())
        judging.join(0.05)
    assert before - min(least) < 3 << 29  # the limit of 1 GiB, and what else happens on the machine


def test_program_has_the_standard_library_threads_and_a_folder() -> None:
    source = """
    import asyncio, concurrent.futures, decimal, hashlib, mmap, os, pathlib, shutil, signal, sqlite3, statistics, zlib
    async def later(x): await asyncio.sleep(0.001); return x
    def others(x):
        shutil.copy2("file", "copy"); shutil.copyfile("copy", "again")
        os.preadv(os.open("again", 0), [bytearray(4)], 0)
        signal.signal(signal.SIGALRM, lambda *a: None); signal.setitimer(signal.ITIMER_REAL, 1)
        assert mmap.mmap(-1, 4096) and open("again").isatty() is False and list(pathlib.Path().glob("*"))
        return [asyncio.run(later(x)), sqlite3.connect(":memory:").execute("select 1").fetchone()[0]]
    def f(x):
        with open("file", "w") as file: file.write("text")
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            mapped = pool.map(lambda y: y + x, [1, 2])
            return [open("file").read(), others(x), *mapped, hashlib.md5(b"a").hexdigest()[:4]]
    """
    if isolation_level() == "rlimits":
        pytest.skip("this machine offers no namespaces: no threads without them")
    job = CodeJob("", "f", textwrap.dedent(source), cases=[((1,), ["text", [1, 1], 2, 3, "0cc1"])])
    assert judge_code([job])[0].reason == "correct"


def test_verdicts_do_not_depend_on_chance() -> None:
    source = "import random\ndef f(): return [random.random(), list({'a', 'b', 'c', 'd', 'e', 'f', 'g'})]"
    tests = f"def check(candidate):\n    assert candidate()[0] == {random.Random(0).random()!r}\n"
    jobs = [CodeJob("", "f", source + f"\n# {i}", tests=tests) for i in range(3)]
    assert [verdict.score for verdict in judge_code(jobs)] == [1.0, 1.0, 1.0]
    fixed = subprocess.run(
        [sys.executable, "-c", "print(hash('x'))"], env={"PYTHONHASHSEED": "0"}, capture_output=True, check=True
    )
    job = CodeJob("", "f", "def f(): return hash('x')", cases=[((), int(fixed.stdout))])
    assert judge_code([job])[0].score == 1.0


@pytest.mark.slow
@pytest.mark.parametrize("way", ["root", "user", "none"])
def test_every_way_of_isolation_judges(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if way == "root" and os.geteuid() != 0:
        pytest.skip("only root can")
    try:
        Server("candidate", way).close()
    except RefusedError as error:
        pytest.skip(f"this machine refuses: {error}")
    code.close()
    monkeypatch.setattr("smallwit.verify.sandbox.pool._ways", [way])
    kill = textwrap.dedent(HOSTILE["parent killed"])
    jobs = [
        honest(),
        CodeJob("", "f", kill, tests=TESTS),
        honest(),
        CodeJob("", "f", HOSTILE["fork bomb"], tests=TESTS),
    ]
    try:
        assert isolation_level() in (LEVELS[:1] if way == "none" else LEVELS[1:])
        assert [verdict.score for verdict in judge_code(jobs, cpu_seconds=LIMIT)] == [1.0, 0.0, 1.0, 0.0]
    finally:
        code.close()


def test_no_server_outlives_its_socket() -> None:
    isolation_level()
    assert code.POOL.pool is not None
    processes = servers()
    assert processes
    code.close()
    _, alive = psutil.wait_procs(processes, timeout=5)
    assert not alive


def test_killed_servers_are_replaced() -> None:
    assert judge_code([honest()], workers=1)[0].score == 1.0
    for process in servers():
        process.kill()
    assert [verdict.score for verdict in judge_code([honest(), honest()], workers=1)] == [1.0, 1.0]


def test_forked_child_has_its_own_servers() -> None:
    assert judge_code([honest()])[0].score == 1.0
    child = os.fork()
    if not child:
        status = 1
        try:
            status = 0 if judge_code([honest()], workers=1)[0].score == 1.0 else 2
            code.close()
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert judge_code([honest()])[0].score == 1.0


def test_other_threads_may_judge_and_signal_handlers_stay() -> None:
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGALRM)]
    scores: list[float | None] = []
    threads = [threading.Thread(target=lambda: scores.append(judge_code([honest()])[0].score)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert scores == [1.0, 1.0, 1.0]
    assert handlers == [
        signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGALRM)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_nothing_stays_behind_when_the_caller_dies(end: signal.Signals) -> None:
    script = (
        "from smallwit.verify.code import CodeJob, isolation_level, judge_code\n"
        "isolation_level(); print('started', flush=True)\n"
        "judge_code([CodeJob('', 'f', 'def f():\\n    while True: pass', cases=[((), 1)])], cpu_seconds=60)\n"
    )
    caller = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert caller.stdout is not None
    caller.stdout.readline()
    time.sleep(0.3)
    processes = psutil.Process(caller.pid).children(recursive=True)
    assert processes
    caller.send_signal(end)
    caller.wait(10)
    caller.stdout.close()
    _, alive = psutil.wait_procs(processes, timeout=5)
    assert not alive
