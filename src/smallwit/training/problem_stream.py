"""Streams of problems: several tasks mixed by weights, each in a seeded order that is new each epoch."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import gcd, lcm
from typing import Literal

import numpy as np

from smallwit.errors import UserError
from smallwit.seeds import stable_seed
from smallwit.tasks.base import Problem, Task
from smallwit.tasks.draw import Order, ordered

Weights = Literal["size", "equal"] | Mapping[str, float]
"""How tasks are mixed: by the number of their problems, equally, or by numbers."""


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


class Mixture:
    """Deals positions 0, 1, 2, ... to tasks by their weights, so that any prefix has each task within one of its share.

    The n-th position of a task has a window: it ends before the task would be one behind its share. Of the tasks whose
    windows are open the one whose window ends first comes next (earliest deadline first; Baruah et al. 1996).
    """

    def __init__(self, weights: Sequence[Fraction]) -> None:
        whole = lcm(*(weight.denominator for weight in weights))
        counts = [int(weight * whole) for weight in weights]
        self.counts = [count // gcd(*counts) for count in counts]
        """Positions of each task in one round."""
        self.total = sum(self.counts)
        self._dealt: list[tuple[int, int]] = []
        self._next = [0] * len(counts)

    def place(self, position: int) -> tuple[int, int]:
        """Return the task at a position, and how many positions before it are that task's."""
        rounds, turn = divmod(position, self.total)
        self._deal(turn + 1)
        which, nth = self._dealt[turn]
        return which, rounds * self.counts[which] + nth

    def shares(self, positions: int) -> list[int]:
        """Return how many of the first `positions` are each task's."""
        rounds, rest = divmod(positions, self.total)
        self._deal(rest)
        some = Counter(which for which, _ in self._dealt[:rest])
        return [rounds * count + some[which] for which, count in enumerate(self.counts)]

    def _deal(self, positions: int) -> None:
        for position in range(len(self._dealt), positions):
            opened = [j for j, nth in enumerate(self._next) if nth * self.total < (position + 1) * self.counts[j]]
            which = min(opened, key=lambda j: -(-(self._next[j] + 1) * self.total // self.counts[j]))
            self._dealt.append((which, self._next[which]))
            self._next[which] += 1


class ProblemStream:
    """An endless stream over several tasks, mixed by `weights`. Item `i` is a pure function of (seed, i).

    The problems of a task come in a new order each epoch, or always in the `given` order. By `size` the first `size`
    items are all problems, each once. Raises `UserError` for a task without a weight.
    """

    def __init__(
        self, tasks: Sequence[TaskProblems], seed: int, name: str, *, given: bool = False, weights: Weights = "size"
    ) -> None:
        self.tasks = list(tasks)
        self.orders = [Given(t.size) if given else Shuffled(t.size, seed, name, t.task.name) for t in self.tasks]
        self.size = sum(t.size for t in self.tasks)
        self.mixture = Mixture([weight_of(each, weights) for each in self.tasks])

    def place(self, index: int) -> tuple[int, int]:
        """Return the task and the index of its problem at a position."""
        which, nth = self.mixture.place(index)
        return which, self.orders[which][nth]

    def at(self, place: tuple[int, int]) -> tuple[Task, Problem]:
        which, row = place
        return self.tasks[which].task, self.tasks[which][row]

    def __getitem__(self, index: int) -> tuple[Task, Problem]:
        return self.at(self.place(index))


def weight_of(problems: TaskProblems, weights: Weights) -> Fraction:
    """Return the weight of a task in a mixture. Raises `UserError` for a task that `weights` does not have."""
    if isinstance(weights, str):
        return Fraction(problems.size if weights == "size" else 1)
    if problems.task.name not in weights:
        raise UserError(f"weights has no number for {problems.task.name}, of which there are rows; add one")
    return Fraction(str(weights[problems.task.name]))
