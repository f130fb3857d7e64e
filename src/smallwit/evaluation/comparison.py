"""Two models on the same problems: which is better, by how much, and on which problems."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from smallwit.evaluation.scores import Row, problem_means
from smallwit.evaluation.statistics import (
    Interval,
    PairedComparison,
    finite,
    holm,
    paired_comparison,
    ratio_interval,
    smallest_difference,
)

POOLED = "pooled"
"""The name of the comparison over all tasks."""


@dataclass(frozen=True)
class Outcome:
    """One problem: the two scores (means over the samples, 0..1)."""

    task: str
    id: str
    a: float
    b: float

    @property
    def outcome(self) -> str:
        """Return the result for `a`: `won`, `lost` or `tied`."""
        return "won" if self.a > self.b else "lost" if self.a < self.b else "tied"


@dataclass(frozen=True)
class TaskComparison:
    """`a` against `b` on one task, or pooled; scores are fractions of 1.

    `p_holm` is the p value adjusted for the number of tasks compared; the pooled comparison, which is not one of them,
    has `None`. `detectable` is the least true difference that so many problems would have shown (80 % power), `ratio`
    is per cent of `b`'s score.
    """

    task: str
    outcomes: Sequence[Outcome]
    paired: PairedComparison
    p_holm: float | None
    detectable: float
    ratio: Interval

    def count(self, outcome: str) -> int:
        """Return how many problems were `won`, `lost` or `tied`."""
        return sum(found.outcome == outcome for found in self.outcomes)

    def as_json(self) -> dict[str, Any]:
        """Return the numbers as JSON; results.json holds a part of them."""
        n = len(self.outcomes)
        return {
            "task": self.task,
            "problems": n,
            "mean_a": sum(found.a for found in self.outcomes) / n,
            "mean_b": sum(found.b for found in self.outcomes) / n,
            "difference": self.paired.difference,
            "low": self.paired.low,
            "high": self.paired.high,
            "p": self.paired.p,
            "test": self.paired.test,
            "p_holm": self.p_holm,
            "detectable": self.detectable,
            "ratio": dict(zip(("percent", "low", "high"), map(finite, self.ratio), strict=True)),
            "won": self.count("won"),
            "lost": self.count("lost"),
            "tied": self.count("tied"),
        }


def compare_tasks(
    a: Mapping[str, Sequence[Row]], b: Mapping[str, Sequence[Row]], seed: int = 0
) -> tuple[list[TaskComparison], TaskComparison | None]:
    """Return one comparison a task on the problems for which both have a verdict, and one over all of them.

    `a` and `b` hold the sample rows of each task. A task without a common problem is left out; the pooled comparison is
    `None` for fewer than two tasks. In it every problem counts alike, and tasks keep their share when it is resampled.
    """
    outcomes = {task: found for task in a if task in b and (found := _outcomes(task, a[task], b[task]))}
    compared = [_compare(task, found, seed) for task, found in outcomes.items()]
    adjusted = holm([comparison.paired.p for comparison in compared])
    tasks = [
        TaskComparison(c.task, c.outcomes, c.paired, p, c.detectable, c.ratio)
        for c, p in zip(compared, adjusted, strict=True)
    ]
    if len(tasks) < 2:
        return tasks, None
    return tasks, _compare(POOLED, [outcome for found in outcomes.values() for outcome in found], seed)


def _outcomes(task: str, a: Sequence[Row], b: Sequence[Row]) -> list[Outcome]:
    first, second = problem_means(a), problem_means(b)
    return [Outcome(task, id, first[id], second[id]) for id in first if id in second]


def _compare(task: str, outcomes: Sequence[Outcome], seed: int) -> TaskComparison:
    a, b = [found.a for found in outcomes], [found.b for found in outcomes]
    strata = [found.task for found in outcomes] if task == POOLED else None
    paired = paired_comparison(a, b, seed, strata=strata)
    ratio = ratio_interval(a, b, seed=seed, strata=strata)
    return TaskComparison(task, outcomes, paired, None, smallest_difference(a, b), ratio)
