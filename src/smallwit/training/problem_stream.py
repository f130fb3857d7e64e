"""Streams of problems: several tasks take turns, each in a seeded order that is new each epoch."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from smallwit.seeds import stable_seed
from smallwit.tasks.base import Problem, Task
from smallwit.tasks.draw import Order, ordered


class Shuffled:
    """Indices 0..size-1 in a new order each epoch. Item `i` of the endless stream is a pure function of (seed, i)."""

    def __init__(self, size: int, *seed: object) -> None:
        self.size = size
        self.seed = seed
        self._epoch = -1
        self._order = np.arange(size)

    def __getitem__(self, index: int) -> int:
        epoch, offset = divmod(index, self.size)
        if epoch != self._epoch:
            generator = np.random.Generator(np.random.Philox(key=stable_seed(*self.seed, epoch)))
            self._order, self._epoch = generator.permutation(self.size), epoch
        return int(self._order[offset])


class Given:
    """Indices 0..size-1 in order, repeated."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __getitem__(self, index: int) -> int:
        return index % self.size


@dataclass(frozen=True)
class TaskProblems:
    """The problems of one task that a source may use: `rows[first:first + size]`."""

    task: Task
    rows: Sequence[Problem]
    first: int
    size: int

    @staticmethod
    def of(
        task: Task, split: str, *, skip: int = 0, limit: int | None = None, order: Order = "drawn"
    ) -> "TaskProblems":
        """Return a part of a split (`tasks.draw`). Raises `ValueError` if no problem is left."""
        rows = ordered(task, split, limit, skip=skip, order=order)
        size = len(rows) - skip if limit is None else min(limit, len(rows) - skip)
        if size <= 0:
            raise ValueError(f"task {task.name}: split {split} has {len(rows)} problems, none left after {skip}")
        return TaskProblems(task, rows, skip, size)

    def __getitem__(self, index: int) -> Problem:
        return self.rows[self.first + index]


class ProblemStream:
    """An endless stream over several tasks that take turns. Item `i` is a pure function of (seed, i).

    The problems of a task come in a new order each epoch, or always in the `given` order. A task that is listed twice
    has two turns in each round.
    """

    def __init__(self, tasks: Sequence[TaskProblems], seed: int, name: str, *, given: bool = False) -> None:
        once = {each.task.name: each for each in tasks}
        self.tasks = list(once.values())
        self.orders = [Given(t.size) if given else Shuffled(t.size, seed, name, t.task.name) for t in self.tasks]
        self.size = sum(t.size for t in self.tasks)
        self._round = [list(once).index(each.task.name) for each in tasks]

    def place(self, index: int) -> tuple[int, int]:
        """Return the task and the index of its problem at a position."""
        rounds, turn = divmod(index, len(self._round))
        which = self._round[turn]
        nth = rounds * self._round.count(which) + self._round[:turn].count(which)
        return which, self.orders[which][nth]

    def at(self, place: tuple[int, int]) -> tuple[Task, Problem]:
        which, row = place
        return self.tasks[which].task, self.tasks[which][row]

    def __getitem__(self, index: int) -> tuple[Task, Problem]:
        return self.at(self.place(index))
