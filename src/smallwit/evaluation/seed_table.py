"""Scores and comparisons of models over several seeds, from the sample rows of each seed."""

from collections.abc import Mapping, Sequence
from functools import cache
from itertools import combinations
from typing import Any

import numpy as np

from smallwit.evaluation.comparison import POOLED, compare_tasks
from smallwit.evaluation.scores import Row, by_stratum, problem_means, scores
from smallwit.evaluation.seeds import (
    SeedSpreads,
    difference_over_seeds,
    mean_over_seeds,
    ratio_over_seeds,
)
from smallwit.evaluation.statistics import Floats, Interval, PairedComparison, holm

SCORE_KEYS = ("mean", "low", "high", "strict", "n", "bounds")
SampleRows = Mapping[str, Sequence[Row]]
"""The sample rows of each task."""
ProblemId = tuple[str, str]
"""The task of a problem and its id."""


class SeedTable:
    """The scores of a run's models: `models[name]` has the sample rows of each seed, one entry for a model without.

    A mean over seeds is over the problems that have a verdict with every seed.
    """

    def __init__(self, models: Mapping[str, Sequence[SampleRows]], seed: int = 0) -> None:
        """`seed` is that of the bootstrap which compares two models without seeds."""
        self.models, self.seed = models, seed
        self._scores = cache(self._read)
        self._spreads = cache(self._pooled_spreads)

    def score(self, name: str, task: str) -> dict[str, Any]:
        """Return the entry of a model's score in results.json, without the signature.

        Raises `ValueError` if no problem has a verdict with every seed.
        """
        runs = [scores(rows[task]) for rows in self.models[name]]
        unverified = sum(run.unverified for run in runs)
        entry = {key: value for key, value in runs[0].as_json().items() if key in SCORE_KEYS}
        if len(runs) > 1:
            lenient, strict = self._matrix(name, task), self._matrix(name, task, "strict")
            interval = mean_over_seeds(lenient, self._spreads(task).mean)
            entry = interval._asdict() | {"strict": float(strict.mean()), "n": lenient.shape[1]}
            if unverified:
                bounds = [run.lenient.mean.bounds or (run.lenient.mean.mean,) * 2 for run in runs]
                entry["bounds"] = [float(end) for end in np.mean(bounds, 0)]
        return entry | ({"unverified": unverified} if unverified else {})

    def means(self, name: str, task: str) -> list[dict[str, float]]:
        """Return the mean and the strict mean of each seed of a model."""
        pairs = zip(self._matrix(name, task).mean(1), self._matrix(name, task, "strict").mean(1), strict=True)
        return [{"mean": float(mean), "strict": float(strict)} for mean, strict in pairs]

    def by_stratum(
        self, name: str, task: str, strata: Mapping[str, Sequence[Sequence[str]]]
    ) -> dict[str, dict[str, dict[str, Any]]]:
        """Return the scores of groups of problems as `scores.by_stratum` does, over the seeds of the model."""
        found = by_stratum(self.models[name][0][task], strata)
        if len(self.models[name]) == 1:
            return found
        for group, values in found.items():
            for value in values:
                ids = {id for id, groups in strata.items() if [group, value] in map(list, groups)}
                part = {
                    model: [{task: [row for row in rows[task] if row["id"] in ids]} for rows in runs]
                    for model, runs in self.models.items()
                    if task in runs[0]
                }
                try:
                    entry = SeedTable(part, self.seed).score(name, task)
                except ValueError:  # no problem of the group has a verdict with every seed
                    entry = {"n": 0}
                values[value] = {key: entry.get(key) for key in values[value]}
        return found

    def compare(self, a: str, b: str) -> list[tuple[dict[str, Any], float]]:
        """Return a comparison a task, then the pooled one if there are several, as entries of results.json.

        Beside each is its p value after Holm's correction for the number of tasks (of the pooled one: p itself).
        """
        if len(self.models[a]) == len(self.models[b]) == 1:
            single, pooled = compare_tasks(self.models[a][0], self.models[b][0], self.seed)
            found = {each.task: each.paired for each in (*single, pooled) if each is not None}
        else:
            named = [task for task in self.models[a][0] if task in self.models[b][0]]
            each = ((task, self._difference(a, b, task)) for task in (*named, POOLED))
            found = {task: paired for task, paired in each if paired is not None}
            if len(found) == 2:  # of one task the pooled one says nothing new
                del found[POOLED]
        tasks = [task for task in found if task != POOLED]
        adjusted = dict(zip(tasks, holm([found[task].p for task in tasks]), strict=True))
        figures = ("difference", "low", "high", "p")
        return [
            (
                {"a": a, "b": b, "task": task} | {key: getattr(paired, key) for key in figures},
                adjusted.get(task, paired.p),
            )
            for task, paired in found.items()
        ]

    def ratio(self, a: str, b: str, task: str) -> Interval | None:
        """Return the score of `a` in per cent of that of `b`; `None` without a common problem or if `b` scores 0."""
        found = self._aligned(a, b, task)
        if found is None or not found[1].any():
            return None
        return ratio_over_seeds(found[0], found[1], self._spreads(task))

    def _difference(self, a: str, b: str, task: str) -> PairedComparison | None:
        found = self._aligned(a, b, task)
        if found is None:
            return None
        return difference_over_seeds(found[0], found[1], self._spreads(task), found[2] if task == POOLED else None)

    def _read(self, name: str, task: str, key: str) -> dict[ProblemId, list[float]]:
        """Return the scores of each problem by seed, for the problems with a verdict of every seed."""
        tasks = list(self.models[name][0]) if task == POOLED else [task]
        found: dict[ProblemId, list[float]] = {}
        for each in tasks:
            runs = [problem_means(rows[each], key) for rows in self.models[name]]
            found |= {(each, id): [run[id] for run in runs] for id in runs[0] if all(id in run for run in runs)}
        return found

    def _matrix(self, name: str, task: str, key: str = "score") -> Floats:
        """Return the scores `[N, P]` of a model. Raises `ValueError` if no problem has a verdict of every seed."""
        found = list(self._scores(name, task, key).values())
        if not found:
            raise ValueError(f"no problem of {task} has a verdict with every seed of {name}")
        return np.asarray(found, dtype=np.float64).T

    def _aligned(self, a: str, b: str, task: str) -> tuple[Floats, Floats, list[str]] | None:
        """Return the scores `[N, P]` of two models on their common problems, and the tasks of these."""
        first, second = self._scores(a, task, "score"), self._scores(b, task, "score")
        common = [id for id in first if id in second]
        if not common:
            return None
        both = [np.asarray([scores[id] for id in common], dtype=np.float64).T for scores in (first, second)]
        return both[0], both[1], [task for task, _ in common]

    def _pooled_spreads(self, task: str) -> SeedSpreads:
        """Return the spreads of the seeds on a task, pooled over the models with seeds that were measured on it."""
        names = [name for name, runs in self.models.items() if len(runs) > 1 and (task == POOLED or task in runs[0])]
        aligned = [self._aligned(a, b, task) for a, b in combinations(names, 2)]
        pairs = [(found[0], found[1]) for found in aligned if found is not None]
        return SeedSpreads.pooled([self._matrix(name, task) for name in names], pairs)
