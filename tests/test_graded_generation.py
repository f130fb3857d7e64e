"""Verdicts come while completions are being written, and are those of a batch that is judged at its end."""

import threading
from collections.abc import Iterator, Sequence

import pytest

from smallwit.inference.engine import Completion, Request
from smallwit.tasks.base import Problem, Task
from smallwit.tasks.wordmath import WordMath
from smallwit.training.sources import RolloutSource
from smallwit.verify import Verdict
from test_sources import PreparedEngine, half_right, rollout_source

PATIENCE = 10.0


class Watched(WordMath):
    """Judges in parallel, as far as it says; remembers what it judged, and in which threads."""

    def __init__(self) -> None:
        super().__init__()
        self.began = threading.Event()
        self.written = threading.Event()
        self.calls: list[int] = []
        self.threads: set[threading.Thread] = set()

    def verify_batch(self, pairs: Sequence[tuple[Problem, str]]) -> list[Verdict]:
        self.began.set()
        self.calls.append(len(pairs))
        self.threads.add(threading.current_thread())
        return super().verify_batch(pairs)


class OutOfOrder(PreparedEngine):
    """Ends its completions from the last to the first. `before_last` is called before the last of them ends."""

    def generate(self, requests: Sequence[Request], on_tokens: object) -> Iterator[tuple[int, Completion]]:
        first, *others = super().generate(requests, on_tokens)
        yield from reversed(others)
        self.before_last()
        yield first

    def before_last(self) -> None:
        pass


def watched(task: Task, engine: PreparedEngine) -> RolloutSource:
    source, _ = rollout_source(tasks=[task])
    source.engine = engine
    return source


def test_a_slow_verifier_has_begun_before_the_last_completion_ends() -> None:
    class Slow(Watched):
        def verify_batch(self, pairs: Sequence[tuple[Problem, str]]) -> list[Verdict]:
            self.began.set()
            assert self.written.wait(PATIENCE)
            return super().verify_batch(pairs)

    task, seen = Slow(), list[bool]()

    class Late(OutOfOrder):
        def before_last(self) -> None:
            seen.append(task.began.wait(PATIENCE))
            task.written.set()

    batch = watched(task, Late(half_right)).batch(0)
    assert seen == [True]
    assert sum(task.calls) == len(batch.examples)


def test_responses_that_came_while_others_were_judged_are_judged_together() -> None:
    class Held(Watched):
        def verify_batch(self, pairs: Sequence[tuple[Problem, str]]) -> list[Verdict]:
            found = super().verify_batch(pairs)
            assert self.written.wait(PATIENCE)
            return found

    task = Held()

    class Quick(OutOfOrder):
        def before_last(self) -> None:
            assert task.began.wait(PATIENCE)
            task.written.set()

    watched(task, Quick(half_right)).batch(0)
    assert sum(task.calls) == 12
    assert len(task.calls) <= 3


def test_the_order_in_which_completions_end_changes_nothing() -> None:
    in_order, _ = rollout_source()
    assert watched(Watched(), OutOfOrder(half_right)).batch(0) == in_order.batch(0)


def test_what_the_verifier_failed_on_is_judged_once_more() -> None:
    class Unreliable(Watched):
        def verify_batch(self, pairs: Sequence[tuple[Problem, str]]) -> list[Verdict]:
            first = not self.calls
            verdicts = super().verify_batch(pairs)
            return [Verdict(None, None, None, "infrastructure") for _ in pairs] if first else verdicts

    batch = watched(Unreliable(), OutOfOrder(half_right)).batch(0)
    assert batch.failed_verdicts == 0
    assert batch == rollout_source()[0].batch(0)


def test_what_a_verifier_raises_is_raised_to_the_caller() -> None:
    class Broken(Watched):
        def verify_batch(self, pairs: Sequence[tuple[Problem, str]]) -> list[Verdict]:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        watched(Broken(), OutOfOrder(half_right)).batch(0)


def test_a_task_that_judges_one_by_one_is_asked_in_the_main_thread() -> None:
    threads = set()

    class Plain(Task):
        name = "plain"

        def problems(self, split: str) -> Sequence[Problem]:
            return WordMath().problems(split)[:10]

        def verify(self, problem: Problem, response: str) -> Verdict:
            threads.add(threading.current_thread())
            return WordMath().verify(problem, response)

    parallel = Watched()
    batch = watched(Plain(), OutOfOrder(half_right)).batch(0)
    assert batch.verdicts == len(batch.examples)
    assert threads == {threading.main_thread()}
    watched(parallel, OutOfOrder(half_right)).batch(0)
    assert threading.main_thread() not in parallel.threads


def test_a_batch_that_is_interrupted_is_made_again_whole() -> None:
    class Cut(OutOfOrder):
        attempts = 0

        def before_last(self) -> None:
            self.attempts += 1
            if self.attempts == 1:
                raise InterruptedError

    task = Watched()
    source = watched(task, Cut(half_right))
    with pytest.raises(InterruptedError):
        source.batch(0)
    assert source.state()["shared"] == []
    assert source.batch(0) == rollout_source()[0].batch(0)
    for thread in task.threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
