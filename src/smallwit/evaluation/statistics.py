"""Confidence intervals and paired tests.

Scores are fractions in 0..1, one a problem. Every function is deterministic: the bootstrap draws from its own seeded
generator. A score that is `None` (our own grader failed) has no place in a mean: `evaluation.scores` leaves it out and
says what the mean could have been.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

RESAMPLES = 10_000
# Up to this many distinct rows, the counts of a resample are drawn directly; above it, drawing row numbers is faster.
_FEW_ROWS = 64
_CHUNK_ELEMENTS = 500_000  # row numbers drawn at a time: small enough to stay in the processor's cache

Floats = NDArray[np.float64]


class Interval(NamedTuple):
    """A mean (or a ratio) and the ends of its interval, in the unit of the function that returns it."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class PairedComparison:
    """`difference` = mean(a) - mean(b) with its interval, as fractions (0.1 is 10 points), and a two-sided p value.

    `test` names what the p value comes from, `McNemar` or `bootstrap`.
    """

    difference: float
    low: float
    high: float
    p: float
    test: str


def mean_interval(scores: Sequence[float], level: float = 0.95) -> Interval:
    """Return the mean of `scores` and an interval that covers the true mean with probability `level`.

    Scores that are all 0 or 1 get Wilson's score interval (Wilson 1927, "Probable inference, the law of succession,
    and statistical inference"), which stays inside 0..1 and holds for small n and near the ends. If any score lies
    strictly between, the interval is Student's t on the mean, cut to 0..1; it is approximate, and with one score
    it is the whole of 0..1, for nothing is known of the spread.

    Raises `ValueError` for no scores or a score outside 0..1.
    """
    values = _checked(scores, "scores")
    mean, n = float(values.mean()), len(values)
    if _binary(values):
        wilson = stats.binomtest(round(float(values.sum())), n).proportion_ci(level, method="wilson")
        return Interval(mean, float(wilson.low), float(wilson.high))
    if n == 1:
        return Interval(mean, 0.0, 1.0)
    half = float(stats.t.ppf(0.5 + level / 2, n - 1)) * float(values.std(ddof=1)) / n**0.5
    return Interval(mean, max(0.0, mean - half), min(1.0, mean + half))


def paired_comparison(
    a: Sequence[float], b: Sequence[float], seed: int = 0, *, strata: Sequence[str] | None = None
) -> PairedComparison:
    """Return how much better `a` is than `b` on the same problems: `a[i]` and `b[i]` are scores of problem i.

    The interval is the 95 % percentile interval of a bootstrap over problems (Efron 1979, "Bootstrap methods: another
    look at the jackknife"). `strata` (one label a problem, for instance its task) keeps each task's share of a pooled
    comparison fixed: problems are drawn anew within their own stratum only. Where every problem has the same difference
    there is nothing to resample, and the interval is what Wilson's bound on the share of other problems leaves open.

    The p value is two-sided. For 0/1 scores it is McNemar's test (McNemar 1947, "Note on the sampling error of the
    difference between correlated proportions") in its exact form: a binomial test on the problems that only one of
    the two solved. For fractional scores it is the share of resampled differences that lie as far from the observed
    difference as that lies from zero (Efron and Tibshirani 1993, chapter 16), never below 1 / 10,001.

    Raises `ValueError` if the lengths differ, are zero, or a score is outside 0..1.
    """
    first, second = _checked_pair(a, b)
    change = first - second
    difference = float(change.mean())
    resampled = _resampled_means(change[:, None], strata_rows(strata, len(change)), seed)[:, 0]
    low, high = np.quantile(resampled, [0.025, 0.975])
    if (change == change[0]).all():
        low, high = without_spread(float(change[0]), len(change))
    if _binary(first) and _binary(second):
        won, lost = int((change > 0).sum()), int((change < 0).sum())
        test, p = "McNemar", float(stats.binomtest(won, won + lost).pvalue) if won + lost else 1.0
    else:
        # The small allowance keeps sums that are equal but for rounding equal.
        as_far = np.abs(resampled - difference) >= abs(difference) - 1e-12
        test, p = "bootstrap", float((1 + as_far.sum()) / (1 + RESAMPLES))
    return PairedComparison(difference, float(low), float(high), p, test)


def without_spread(difference: float, n: int) -> tuple[float, float]:
    """Return the ends of the interval of a difference that all of n problems show.

    At most z^2 / (n + z^2) of all problems show another one (Wilson 1927: none of n did), and no other one lies outside
    of -1..1.
    """
    square = float(stats.norm.ppf(0.975)) ** 2
    share = square / (n + square)
    return difference - share * (difference + 1), difference + share * (1 - difference)


def smallest_difference(a: Sequence[float], b: Sequence[float], power: float = 0.8, level: float = 0.95) -> float:
    """Return the least true difference of two means that as many pairs as these would show with chance `power`.

    (z(1 - (1 - level) / 2) + z(power)) * s / sqrt(n), the normal approximation for paired samples, with s the root mean
    square of the observed differences: for 0/1 scores the share of problems that only one of the two solves is s^2
    (Connor 1987, "Sample size for testing differences in proportions for the paired-sample design", with the variance
    of no difference). For 0/1 scores it is never less than m / n, with m the fewest problems, all decided the same way,
    from which McNemar's exact test can find p below 1 - level (6 at 95 %).

    Raises `ValueError` as `paired_comparison` does.
    """
    first, second = _checked_pair(a, b)
    n = len(first)
    spread = float(np.sqrt(np.square(first - second).mean()))
    least = float(stats.norm.ppf(0.5 + level / 2) + stats.norm.ppf(power)) * spread / n**0.5
    if not (_binary(first) and _binary(second)):
        return least
    fewest = 1
    while 2 * 0.5**fewest >= 1 - level:
        fewest += 1
    return max(least, fewest / n)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p values adjusted for having made all these tests at once, in the same order.

    Holm 1979, "A simple sequentially rejective multiple test procedure": the i-th smallest of m is multiplied by
    m + 1 - i, never less than the one before it, at most 1.
    """
    adjusted = [0.0] * len(p_values)
    least = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = least
    return adjusted


def finite(value: float) -> float | None:
    """Return a number, or `None` for infinity and NaN, which JSON does not have."""
    return value if abs(value) < float("inf") else None


def ratio_interval(
    a: Sequence[float],
    b: Sequence[float],
    paired: bool = True,
    seed: int = 0,
    *,
    strata: Sequence[str] | None = None,
) -> Interval:
    """Return mean(a) / mean(b) in per cent, with a 95 % percentile bootstrap interval (Efron 1979).

    Paired (the default): `a[i]` and `b[i]` are scores of problem i and are drawn together, within their stratum if
    `strata` is given. Not paired: the two are drawn independently and may differ in length; `strata` is then refused.
    A resample in which `b` scores nothing counts as infinite; if `b` scores nothing at all the result is all NaN.

    Raises `ValueError` for no scores, a score outside 0..1, or lengths that differ when paired.
    """
    if paired:
        first, second = _checked_pair(a, b)
        both = np.stack([first, second], axis=1)
        means = _resampled_means(both, strata_rows(strata, len(both)), seed)
    elif strata is not None:
        raise ValueError("strata need paired scores")
    else:
        first, second = _checked(a, "a"), _checked(b, "b")
        columns = (
            _resampled_means(v[:, None], strata_rows(None, len(v)), seed + i) for i, v in enumerate((first, second))
        )
        means = np.concatenate(list(columns), axis=1)
    if not second.any():
        return Interval(float("nan"), float("nan"), float("nan"))
    ratios = np.full(len(means), np.inf)
    np.divide(means[:, 0], means[:, 1], out=ratios, where=means[:, 1] > 0)
    # Values that were really drawn ("lower" / "higher"): halfway between a number and infinity there is nothing.
    low, high = np.quantile(ratios, 0.025, method="lower"), np.quantile(ratios, 0.975, method="higher")
    return Interval(100 * float(first.mean() / second.mean()), 100 * float(low), 100 * float(high))


def _resampled_means(values: Floats, groups: list[NDArray[np.intp]], seed: int) -> Floats:
    """Return means of `RESAMPLES` bootstrap samples: values [n, columns] -> [RESAMPLES, columns].

    Rows are drawn whole (so columns stay paired), and within each group of row numbers.
    """
    rng = np.random.default_rng(seed)
    return sum((_resampled_sums(values[rows], rng) for rows in groups), np.zeros((1, 1))) / len(values)


def _resampled_sums(values: Floats, rng: np.random.Generator) -> Floats:
    """Return sums of bootstrap samples of the rows of one group: [n, columns] -> [RESAMPLES, columns]."""
    n, columns = values.shape
    rows, counts = np.unique(values, axis=0, return_counts=True)
    if len(rows) <= _FEW_ROWS:
        # How often each distinct row is drawn is multinomial: the same distribution, at a cost that n does not enter.
        return rng.multinomial(n, counts / n, size=RESAMPLES) @ rows
    sums = np.empty((RESAMPLES, columns))
    step = max(1, _CHUNK_ELEMENTS // n)
    for start in range(0, RESAMPLES, step):
        chosen = rng.integers(0, n, size=(min(step, RESAMPLES - start), n))
        for column in range(columns):
            sums[start : start + len(chosen), column] = values[:, column][chosen].sum(axis=1)
    return sums


def strata_rows(strata: Sequence[str] | None, n: int) -> list[NDArray[np.intp]]:
    """Return the row numbers of each stratum; one group of all rows without strata."""
    if strata is None:
        return [np.arange(n)]
    if len(strata) != n:
        raise ValueError(f"strata: {len(strata)} labels for {n} scores")
    labels = np.asarray(strata)
    return [np.flatnonzero(labels == label) for label in np.unique(labels)]


def _checked_pair(a: Sequence[float], b: Sequence[float]) -> tuple[Floats, Floats]:
    if len(a) != len(b):
        raise ValueError(f"paired scores of different lengths: a has {len(a)}, b has {len(b)}")
    return _checked(a, "a"), _checked(b, "b")


def _checked(scores: Sequence[float], name: str) -> Floats:
    if any(score is None for score in scores):
        raise ValueError(f"{name}: holds None (a failed grader); leave such samples out, as evaluation.scores does")
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 1 or not len(values):
        raise ValueError(f"{name}: a flat, non-empty sequence of scores is needed, got shape {values.shape}")
    # Written so that NaN is refused too.
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError(f"{name}: scores lie in 0..1, got {values.min()} to {values.max()}")
    return values


def _binary(values: Floats) -> bool:
    return bool(((values == 0) | (values == 1)).all())
