"""The ordered parallel map: results in order, each key computed once."""

import threading
import time
from collections.abc import Iterator

import pytest

from smallwit.verify.ordered_map import AHEAD, CachedTask, LRUCache, ordered_map


def remembering() -> LRUCache[int]:
    return LRUCache(8, lambda value: value >= 0)


def test_results_come_in_order_whichever_is_ready_first() -> None:
    def work(number: int) -> CachedTask[int, int]:
        def do() -> int:
            time.sleep(0.02 if number % 3 == 0 else 0.0)
            return number

        return CachedTask(number, do, lambda value: value * 10)

    items = [work(number) if number % 2 else -number for number in range(30)]
    expected = [number * 10 if number % 2 else -number for number in range(30)]
    assert list(ordered_map(items, 4, remembering(), lambda: None)) == expected


def test_equal_keys_are_done_once_and_failures_are_not_remembered() -> None:
    memory, done = remembering(), []

    def work(key: int) -> CachedTask[int, str]:
        return CachedTask(key, lambda: done.append(key) or key, str)  # type: ignore[func-returns-value]

    def run(keys: list[int]) -> list[str]:
        return list(ordered_map(map(work, keys), 2, memory, lambda: None))

    assert run([1, 2, 1, 1, -1, 2]) == ["1", "2", "1", "1", "-1", "2"]
    assert sorted(done) == [-1, 1, 2]
    run([1, -1])
    assert sorted(done) == [-1, -1, 1, 2]
    run(list(range(10, 30)))
    run([1])  # long forgotten
    assert done.count(1) == 2


def test_no_more_than_a_window_is_read_ahead() -> None:
    gate, read = threading.Event(), []

    def items() -> Iterator[CachedTask[int, int]]:
        for number in range(3 * AHEAD):
            read.append(number)
            yield CachedTask(number, lambda number=number: gate.wait(10) and number, int)  # type: ignore[misc]

    def open_when_full() -> None:
        while len(read) <= AHEAD:
            time.sleep(0.01)
        time.sleep(0.1)  # in which more would be read
        gate.set()

    results = ordered_map(items(), 2, remembering(), lambda: None)
    threading.Thread(target=open_when_full, daemon=True).start()
    assert next(results) == 0
    assert len(read) == AHEAD + 1
    assert list(results) == list(range(1, 3 * AHEAD))


@pytest.mark.parametrize("end", ["error", "early"])
def test_what_runs_is_abandoned_when_the_work_ends_too_soon(end: str) -> None:
    stopped, started = threading.Event(), []

    def wait(number: int) -> int:
        started.append(number)
        if number == 1 and end == "error":
            raise RuntimeError("broken")
        if number > 1:
            assert stopped.wait(10)
        return number

    items = [CachedTask(number, lambda number=number: wait(number), int) for number in range(100)]  # type: ignore[misc]
    results = ordered_map(items, 2, remembering(), stopped.set)
    assert next(results) == 0
    if end == "early":
        results.close()
    else:
        with pytest.raises(RuntimeError, match="broken"):
            next(results)
    assert stopped.is_set()
    assert len(started) < 10
