"""The processes behind the math grader: when they start, what ends them, and what their failure means."""

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from smallwit.verify import math, math_pool
from smallwit.verify.math import grade_math_batch

PAIRS = [(r"2\sqrt{3}", r"\boxed{\sqrt{12}}"), ("x^2-1", r"\boxed{(x-1)(x+1)}"), ("x+1", r"\boxed{x+2}")]
SCORES = [1.0, 1.0, 0.0]


def scores(cpu_seconds: float = math_pool.CPU_SECONDS) -> list[float | None]:
    math._outcomes.clear()
    return [verdict.score for verdict in grade_math_batch(PAIRS, cpu_seconds=cpu_seconds)]


@pytest.fixture
def fresh_pool() -> Iterator[None]:
    math_pool.close()
    math._outcomes.clear()
    yield
    math_pool.close()


def workers() -> list[math_pool.FormulaWorker]:
    assert math_pool.POOL.pool is not None
    return math_pool.POOL.pool.workers


def test_numbers_start_no_process_and_import_no_algebra() -> None:
    script = """
        import sys
        from smallwit.verify import math_pool
        from smallwit.verify.math import grade_math
        assert grade_math("72", r"\\boxed{72.0}").score == 1.0
        assert grade_math(r"\\text{Evelyn}", r"\\boxed{Evelyn}").score == 1.0
        assert math_pool.POOL.pool is None
        assert grade_math(r"2\\sqrt{3}", r"\\boxed{\\sqrt{12}}").score == 1.0
        assert not {"sympy", "math_verify", "torch"} & set(sys.modules)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, timeout=120)


def test_a_script_without_a_main_guard_is_not_run_again(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "print('started')\n"
        "from smallwit.verify.math import grade_math\n"
        "print(grade_math('2\\\\sqrt{3}', r'\\boxed{\\sqrt{12}}').score)\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.split() == ["started", "1.0"]


@pytest.mark.slow
def test_workers_end_with_their_parent(tmp_path: Path) -> None:
    script = (
        "import os, signal\nfrom smallwit.verify import math_pool\nfrom smallwit.verify.math import grade_math\n"
        "grade_math('2\\\\sqrt{3}', r'\\boxed{\\sqrt{12}}')\n"
        "print(math_pool.POOL.pool.workers[0].process.pid, flush=True)\nos.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    pid = int(done.stdout)
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2]:
        assert time.monotonic() < deadline, "the worker outlived its parent"
        time.sleep(0.05)


@pytest.mark.slow
def test_the_memory_of_the_process_that_asks_is_not_the_workers() -> None:
    script = """
        from smallwit.verify import math_pool
        from smallwit.verify.math import grade_math
        held = b"1" * (900 << 20)
        assert grade_math("x+1", r"\\boxed{x+2}").reason != "limit"
        assert [worker.requests for worker in math_pool.POOL.pool.workers] == [1]
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, timeout=120)


@pytest.mark.slow
def test_threads_share_the_pool() -> None:
    results: list[list[float | None]] = []
    threads = [threading.Thread(target=lambda: results.append(scores())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [SCORES] * 4


def _graded(queue: "multiprocessing.Queue[list[float | None]]") -> None:
    queue.put(scores())


@pytest.mark.slow
@pytest.mark.parametrize("daemon", [False, True])
def test_a_forked_child_has_workers_of_its_own(fresh_pool: None, daemon: bool) -> None:
    assert scores() == SCORES
    mine = {worker.process.pid for worker in workers()}
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_graded, args=(queue,), daemon=daemon)
    child.start()
    assert queue.get(timeout=60) == SCORES
    child.join(20)
    assert child.exitcode == 0
    assert scores() == SCORES
    assert {worker.process.pid for worker in workers()} == mine


@pytest.mark.slow
def test_a_killed_worker_is_replaced(fresh_pool: None) -> None:
    assert scores() == SCORES
    for worker in workers():
        os.kill(worker.process.pid, signal.SIGKILL)
    assert scores() == SCORES


@pytest.mark.slow
def test_a_stuck_worker_is_given_up(fresh_pool: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert scores() == SCORES
    for worker in workers():
        os.kill(worker.process.pid, signal.SIGSTOP)
    monkeypatch.setattr(math_pool, "WALL_SECONDS", 3.0)
    assert scores(cpu_seconds=0.5) == SCORES


def test_failure_of_our_own_is_no_verdict(
    fresh_pool: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(math_pool, "_SCRIPT", tmp_path / "missing.py")
    verdicts = grade_math_batch([*PAIRS[:1], ("72", r"\boxed{72}"), (r"2\sqrt{3}", "no idea: 7")])
    assert (verdicts[0].score, verdicts[0].strict, verdicts[0].reason) == (None, None, "infrastructure")
    assert [verdict.score for verdict in verdicts[1:]] == [1.0, 0.0] or verdicts[2].score is None
    assert "attempt 2" in caplog.text


@pytest.mark.slow
def test_a_worker_that_has_done_much_is_replaced(fresh_pool: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(math_pool, "REQUESTS_A_WORKER", 2)
    assert scores() == SCORES
    assert scores() == SCORES
    assert len(workers()) <= 1


def test_equal_formulas_are_compared_once(fresh_pool: None) -> None:
    verdicts = grade_math_batch([PAIRS[0]] * 50)
    assert all(verdict.score == 1.0 for verdict in verdicts)
    assert sum(worker.requests for worker in workers()) == 1


def test_a_comparison_that_takes_too_long_is_ended(fresh_pool: None) -> None:
    terms = [f"\\sin(x_{{{number}}})" for number in range(150)]
    pair = ("+".join(terms), f"\\boxed{{{'+'.join(reversed(terms))}}}")
    assert grade_math_batch([pair], cpu_seconds=0.1)[0].reason == "limit"
    assert grade_math_batch([pair], cpu_seconds=60.0)[0].reason == "correct"
    assert scores() == SCORES
