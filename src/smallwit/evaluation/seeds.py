r"""Intervals over seeds and problems, for models that were trained once for each of several seeds.

All seeds of a model answer the same problems, so seeds and problems are crossed. The score of seed s on problem p is

    y[s, p] = mu + S[s] + Q[p] + e[s, p]

with independent random effects of the seed, of the problem and of the pair (crossed random effects: Clark 1973, "The
language-as-fixed-effect fallacy"; Searle, Casella and McCulloch 1992, "Variance components", chapter 4). The mean of
N seeds and P problems has the variance

    Var = (var(S) + var(e) / P) / N  +  var(Q) / P  =  seed part + problem part

- Seed part: the bracket is the variance of a seed's mean, and the sample variance of the N means estimates it.
- Problem part: two seeds share nothing but Q, so the covariance of their scores over the problems estimates var(Q);
  the mean over all pairs of seeds is taken. It is the term of Miller 2024 ("Adding error bars to evals", arXiv
  2411.00640, section 2) without the noise that the first part already has.

Few seeds say little of their spread, so it is pooled over the models of a run. A spread is smaller near 0 and 1, so
what is pooled is the ratio of the variance to m (1 - m), with m the model's mean. M models with N seeds each give
M (N - 1) degrees of freedom. The seed part of a difference of two models with seeds is pooled over all pairs of
models: as seeds are paired, that has (M - 1) (N - 1) degrees of freedom.

The interval is Student's t. With r the share of the seed part in the variance, its degrees of freedom are

    1 / df = r / df(seeds) + (1 - r) / (P - 1)

Satterthwaite 1946 ("An approximate distribution of estimates of variance components") has r squared. He takes r for
known; with two degrees of freedom of its own it is not, and where seeds spread by 5 points his intervals cover 91 to
93 % (`benchmarks/seed_coverage.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple, Self

import numpy as np
from scipy import stats

from smallwit.evaluation.statistics import Floats, Interval, PairedComparison, strata_rows, without_spread


class Spread(NamedTuple):
    """A pooled spread of seeds: the variance of a seed's mean as a ratio to m (1 - m), and its degrees of freedom."""

    ratio: float
    df: int


@dataclass(frozen=True)
class SeedSpreads:
    """The spreads of a run's seeds: of one model's mean, and of the difference of two models with the same seeds."""

    mean: Spread
    difference: Spread

    @classmethod
    def pooled(cls, models: Sequence[Floats], pairs: Sequence[tuple[Floats, Floats]] | None = None) -> Self:
        """Return the spreads pooled over `models`: the scores `[N, P]` of each model with seeds, N >= 2.

        `pairs` has the scores of every two of them on the problems of both; `None` means that all models have the same
        problems. Raises `ValueError` without a model.
        """
        if not models:
            raise ValueError("a spread of seeds needs the scores of a model with seeds")
        pairs = list(combinations(models, 2)) if pairs is None else pairs
        within = sum(len(scores) - 1 for scores in models)
        # Each model has a share of the degrees of freedom of the pairs; without pairs there is no difference.
        between = within - (len(models[0]) - 1)
        ratios = [(_seed_variance(scores), _binomial(scores), len(scores) - 1) for scores in models]
        changes = [(_seed_variance(a - b), _binomial(a) + _binomial(b), len(a) - 1) for a, b in pairs]
        return cls(Spread(_pooled(ratios), within), Spread(_pooled(changes), max(1, between)))


def mean_over_seeds(scores: Floats, spread: Spread, level: float = 0.95) -> Interval:
    """Return the mean of `scores` `[N, P]` (seed, problem; 0..1) and its interval over seeds and problems.

    It is Wilson's score interval with the number of problems that would have given this variance without seeds (Korn
    and Graubard 1998, "Confidence intervals for proportions with small expected number of positive counts estimated
    from survey data"), and with Student's quantile for the normal one: it stays inside 0..1. A model that got
    everything right (or wrong) with all seeds has the interval of its P problems.

    Raises `ValueError` for fewer than two seeds.
    """
    if len(scores) < 2:
        raise ValueError(f"an interval over seeds needs two seeds, got {len(scores)}")
    mean, problems, binomial = float(scores.mean()), scores.shape[1], _binomial(scores)
    if problems == 1:
        return Interval(mean, 0.0, 1.0)
    variance, df = _variance(scores, spread.ratio * binomial / len(scores), spread.df)
    n = binomial / variance if binomial > 0 and variance > 0 else problems
    square = float(stats.t.ppf(0.5 + level / 2, df)) ** 2
    center = (mean + square / (2 * n)) / (1 + square / n)
    half = (square * binomial / n + (square / (2 * n)) ** 2) ** 0.5 / (1 + square / n)
    return Interval(mean, max(0.0, center - half), min(1.0, center + half))


def difference_over_seeds(
    a: Floats, b: Floats, spreads: SeedSpreads, strata: Sequence[str] | None = None
) -> PairedComparison:
    """Return how much better `a` is than `b` on the same problems, with the 95 % interval over seeds and problems.

    `a` and `b` are scores `[N, P]` of the same seeds and problems; a model without seeds has `[1, P]`. With `strata`
    (one label a problem, for instance its task) the problem part is that of a stratified sample. The p value is that of
    the same t, so that it is below 0.05 where the interval excludes 0. If all seeds and problems have the same
    difference, there is no variance: the interval is that of `paired_comparison`, p that of a sign test on problems.

    Raises `ValueError` if the problems differ, or the seeds of two models with seeds.
    """
    change = _paired(a, b)
    difference, problems = float(change.mean()), change.shape[1]
    variance, df = _variance(change, *_seed_part(a, b, spreads), strata)
    if variance <= 0:
        low, high = without_spread(difference, problems)
        p = float(stats.binomtest(problems, problems).pvalue) if difference else 1.0
        return PairedComparison(difference, low, high, p, "sign")
    half = float(stats.t.ppf(0.975, df)) * variance**0.5
    p = float(2 * stats.t.sf(abs(difference) / variance**0.5, df))
    return PairedComparison(difference, max(-1.0, difference - half), min(1.0, difference + half), p, "Student's t")


def smallest_difference_over_seeds(
    a: Floats,
    b: Floats,
    spreads: SeedSpreads,
    strata: Sequence[str] | None = None,
    *,
    seeds: int | None = None,
    power: float = 0.8,
) -> float:
    """Return the least true difference that a comparison of `a` and `b` `[N, P]` would show with chance `power`.

    (t(0.975) + t(power)) times the standard error, with the t of `difference_over_seeds`: the approximation of
    `statistics.smallest_difference` with Student's quantiles. `seeds` asks for another number of seeds of both: the
    seed part and its degrees of freedom change with it, the problem part stays. With `power` 0.5 it is half the width
    of the interval. Where all seeds and problems have the same difference, it is what the problems leave open, too.
    """
    change, given = _paired(a, b), max(len(a), len(b))
    seeds = given if seeds is None else seeds
    seed_part, df = _seed_part(a, b, spreads)
    variance, of_all = _variance(change, seed_part * given / seeds, df * (seeds - 1) / (given - 1), strata)
    if variance <= 0:
        low, high = without_spread(0.0, change.shape[1])
        return (high - low) / 2
    return float(stats.t.ppf(0.975, of_all) + stats.t.ppf(power, of_all)) * float(variance**0.5)


def problem_covariance(models: Sequence[Floats], strata: Sequence[str] | None = None) -> Floats:
    """Return the covariance `[M, M]` of the models' means `[N, P]` that comes from the problems they share.

    It is the problem part of a model's own variance on the diagonal. Estimates that no sample could have (negative
    variances of a direction) are set to zero.
    """
    problems = models[0].shape[1]
    found = np.zeros((len(models), len(models)))
    for rows in strata_rows(strata, problems):
        means = np.stack([scores[:, rows].mean(0) for scores in models])
        part = np.atleast_2d(np.cov(means, ddof=min(1, len(rows) - 1)))
        np.fill_diagonal(part, [_shared_variance(scores[:, rows]) for scores in models])
        found += len(rows) / problems**2 * part
    values, vectors = np.linalg.eigh(found)
    clipped: Floats = (vectors * values.clip(0)) @ vectors.T
    return clipped


def ratio_over_seeds(a: Floats, b: Floats, spreads: SeedSpreads) -> Interval:
    """Return mean(a) / mean(b) in per cent with its 95 % interval, for scores as `difference_over_seeds` takes them.

    The ratio R is linearised (Cochran 1977, "Sampling techniques", chapter 6): its variance is that of the mean of
    (a - R b) / mean(b). If `b` scores nothing, the result is all NaN.
    """
    _paired(a, b)
    base = float(b.mean())
    if base == 0:
        return Interval(float("nan"), float("nan"), float("nan"))
    ratio = float(a.mean()) / base
    seed_part, df = _seed_part(a, b, spreads, ratio)
    variance, of_all = _variance((a - ratio * b) / base, seed_part / base**2, df)
    half = float(stats.t.ppf(0.975, of_all)) * variance**0.5
    return Interval(100 * ratio, 100 * max(0.0, ratio - half), 100 * (ratio + half))


def _paired(a: Floats, b: Floats) -> Floats:
    """Return a - b `[N, P]`. Raises `ValueError` for scores that cannot be paired."""
    if a.shape[1] != b.shape[1] or (len(a) != len(b) and min(len(a), len(b)) > 1) or max(len(a), len(b)) < 2:
        raise ValueError(f"scores of seeds and problems that cannot be paired: a is {a.shape}, b is {b.shape}")
    change: Floats = a - b
    return change


def _seed_part(a: Floats, b: Floats, spreads: SeedSpreads, factor: float = 1.0) -> tuple[float, int]:
    """Return the variance of mean(a) - factor * mean(b) that comes from the seeds, and its degrees of freedom."""
    seeds = max(len(a), len(b))
    spread = spreads.difference if len(a) == len(b) else spreads.mean
    scale = sum(f * _binomial(scores) for scores, f in ((a, 1.0), (b, factor**2)) if len(scores) > 1)
    return spread.ratio * scale / seeds, spread.df


def _variance(
    values: Floats, seed_part: float, seed_df: float, strata: Sequence[str] | None = None
) -> tuple[float, float]:
    """Return the variance of the mean of `values` `[N, P]` and its degrees of freedom."""
    problems = values.shape[1]
    groups = strata_rows(strata, problems)
    problem_part = sum(len(rows) / problems**2 * _shared_variance(values[:, rows]) for rows in groups)
    variance = seed_part + max(0.0, problem_part)
    if variance == 0:
        return 0.0, problems - 1
    share = seed_part / variance
    return variance, 1 / (share / seed_df + (1 - share) / max(1, problems - 1))


def _shared_variance(values: Floats) -> float:
    """Return the mean covariance over problems of two seeds' values: `[N, P]`, N >= 2."""
    seeds, problems = values.shape
    if problems < 2:
        return 0.0
    total = float(values.sum(0).var(ddof=1))
    return (total - float(values.var(1, ddof=1).sum())) / (seeds * (seeds - 1))


def _seed_variance(values: Floats) -> float:
    return float(values.mean(1).var(ddof=1))


def _binomial(values: Floats) -> float:
    mean = float(values.mean())
    return mean * (1 - mean)


def _pooled(terms: Sequence[tuple[float, float, int]]) -> float:
    """Return the mean of variance / scale, weighted by degrees of freedom; terms without a scale say nothing."""
    known = [(variance / scale, df) for variance, scale, df in terms if scale > 0]
    return sum(ratio * df for ratio, df in known) / max(1, sum(df for _, df in known))
