"""Statistics of a study: scores over seeds and problems, the best arm, the front, and a check by other seeds.

All arms answer the same problems with the same seeds; `smallwit.evaluation.seeds` has the model of a score.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import NamedTuple

import numpy as np

from smallwit.evaluation.seeds import (
    SeedSpreads,
    difference_over_seeds,
    mean_over_seeds,
    problem_covariance,
    smallest_difference_over_seeds,
)
from smallwit.evaluation.statistics import Floats, Interval, PairedComparison, holm

DRAWS = 20_000
SIGNIFICANT = 0.05
MOST_SEEDS = 100
SAME_COST = 1.01
"""Costs that differ by less than this ratio count as equal: a stage ends with the step that spends its rest."""


class Pair(NamedTuple):
    """Two arms by number, the difference of the first to the second, and p after Holm's correction in its family."""

    a: int
    b: int
    compared: PairedComparison
    p_holm: float


class HeldOut(NamedTuple):
    """How advice from `chosen_by` of the seeds held on the rest, over all `splits` of the seeds.

    `held`: splits in which the best arm of the first was the best of the rest too. `named`: splits in which the best of
    the rest was it, or not told apart from it by the first seeds. `lost`: mean difference of the
    best of the rest to the chosen arm, on the rest (0..1). `shown`: differences that the first seeds showed (Holm),
    `same_sign` those of them that the rest had with the same sign.
    """

    splits: int
    chosen_by: int
    held: int
    named: int
    lost: float
    shown: int
    same_sign: int


def tied(best: int, pairs: Sequence[Pair]) -> list[int]:
    """Return the arms that `pairs`, which are all at a budget, do not tell apart from the best."""
    near = [pair for pair in pairs if best in (pair.a, pair.b) and pair.p_holm >= SIGNIFICANT]
    return [pair.b if pair.a == best else pair.a for pair in near]


@dataclass(frozen=True)
class ArmScores:
    """The scores `[N, P]` (seed, problem; 0..1) of M arms; `strata` has the task of each problem."""

    scores: Sequence[Floats]
    strata: Sequence[str]

    @cached_property
    def spreads(self) -> SeedSpreads:
        """Return the spreads of the seeds, pooled over the arms."""
        return SeedSpreads.pooled(self.scores)

    @cached_property
    def means(self) -> Floats:
        """Return the mean of each arm `[M]`."""
        return np.asarray([scores.mean() for scores in self.scores])

    @property
    def seed_spread(self) -> float:
        """Return the standard deviation of one seed's mean (0..1), for an arm with the mean of all arms."""
        mean = float(self.means.mean())
        return float((self.spreads.mean.ratio * mean * (1 - mean)) ** 0.5)

    def interval(self, arm: int) -> Interval:
        """Return the mean of an arm with its 95 % interval over seeds and problems."""
        return mean_over_seeds(self.scores[arm], self.spreads.mean)

    def compared(self, pairs: Sequence[tuple[int, int]]) -> list[Pair]:
        """Return the comparisons of pairs of arms, p corrected for their number."""
        found = [self._difference(a, b) for a, b in pairs]
        adjusted = holm([each.p for each in found])
        return [Pair(*pair, each, p) for pair, each, p in zip(pairs, found, adjusted, strict=True)]

    def _difference(self, a: int, b: int) -> PairedComparison:
        return difference_over_seeds(self.scores[a], self.scores[b], self.spreads, self._stratified())

    def _stratified(self) -> Sequence[str] | None:
        return self.strata if len(set(self.strata)) > 1 else None

    def detectable(self, a: int, b: int, *, power: float = 0.8, seeds: int | None = None) -> float:
        """Return the least true difference of two arms that so many seeds would show with chance `power`."""
        return smallest_difference_over_seeds(
            self.scores[a], self.scores[b], self.spreads, self._stratified(), power=power, seeds=seeds
        )

    def seeds_needed(self, a: int, b: int) -> int | None:
        """Return how many seeds would show the measured difference of two arms with 80 % chance.

        `None` if `MOST_SEEDS` on these problems would not.
        """
        difference = abs(float(self.means[a] - self.means[b]))
        counts = range(2, MOST_SEEDS + 1)
        return next((n for n in counts if self.detectable(a, b, seeds=n) <= difference), None)

    @cached_property
    def draws(self) -> Floats:
        """Return draws of the arms' true means `[DRAWS, M]`, from their posterior under a flat prior.

        The seed part of each mean is Student's t with the pooled spread of differences, the problem part normal with
        the arms' covariance over problems (Box and Tiao 1973, "Bayesian inference in statistical analysis", chapter 2).
        What all seeds of all arms have in common cancels in every difference and is left out.
        """
        rng = np.random.default_rng(0)
        ratio, df = self.spreads.difference
        seeds = len(self.scores[0])
        scale = np.sqrt(ratio * self.means * (1 - self.means) / seeds)
        shape = (DRAWS, len(self.scores))
        luck = rng.standard_normal(shape) * scale / np.sqrt(rng.chisquare(df, (DRAWS, 1)) / df)
        covariance = problem_covariance(self.scores, self._stratified())
        drawn: Floats = (
            self.means + luck + rng.multivariate_normal(np.zeros(shape[1]), covariance, DRAWS, method="eigh")
        )
        return drawn

    def best_probability(self, among: Sequence[int]) -> list[float]:
        """Return the probability of each of these arms that its true mean is the highest of them; ties share it."""
        chosen = self.draws[:, list(among)]
        highest = chosen == chosen.max(1, keepdims=True)
        return [float(share) for share in (highest / highest.sum(1, keepdims=True)).mean(0)]

    def front_probability(self, costs: Sequence[float]) -> list[float]:
        """Return the probability of each arm that no other arm with at most its cost has a higher true mean."""
        found = []
        for arm, cost in enumerate(costs):
            rivals = [other for other, theirs in enumerate(costs) if theirs <= SAME_COST * cost]
            found.append(float((self.draws[:, rivals].max(1) <= self.draws[:, arm]).mean()))
        return found

    def front(self, costs: Sequence[float]) -> list[bool]:
        """Return for each arm whether no other arm with at most its cost has a higher measured mean."""
        return [
            all(
                self.means[other] <= self.means[arm] for other, theirs in enumerate(costs) if theirs <= SAME_COST * cost
            )
            for arm, cost in enumerate(costs)
        ]

    def held_out(self) -> HeldOut | None:
        """Return how advice from three fifths of the seeds held on the others.

        `None` for fewer than three seeds, and for arms that all score the same, of which nothing is advised.
        """
        seeds, arms = len(self.scores[0]), range(len(self.scores))
        if seeds < 3 or np.ptp(self.means) == 0:
            return None
        count = max(2, round(0.6 * seeds))
        splits, held, named, shown, same, lost = 0, 0, 0, 0, 0, 0.0
        pairs = list(combinations(arms, 2))
        for chosen in combinations(range(seeds), count):
            rest = [seed for seed in range(seeds) if seed not in chosen]
            first = ArmScores([scores[list(chosen)] for scores in self.scores], self.strata)
            later = np.asarray([scores[rest].mean() for scores in self.scores])
            best, truly, compared = int(first.means.argmax()), int(later.argmax()), first.compared(pairs)
            apart = [pair for pair in compared if pair.p_holm < SIGNIFICANT]
            splits += 1
            held += truly == best
            named += truly in (best, *tied(best, compared))
            lost += float(later[truly] - later[best])
            shown += len(apart)
            same += sum(bool((later[pair.a] - later[pair.b]) * pair.compared.difference > 0) for pair in apart)
        return HeldOut(splits, count, held, named, lost / splits, shown, same)
