"""Intervals over seeds and problems: against analysis of variance, against what they promise, and at the edges."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from smallwit.evaluation.seeds import (
    SeedSpreads,
    Spread,
    difference_over_seeds,
    mean_over_seeds,
    ratio_over_seeds,
)
from smallwit.evaluation.statistics import mean_interval

Floats = NDArray[np.float64]
NONE = SeedSpreads(Spread(0.0, 2), Spread(0.0, 2))


def solved(
    rng: np.random.Generator, seeds: int, problems: int, mean: float = 0.5, spread: float = 0.0, hard: float = 0.3
) -> Floats:
    """Scores of 0 and 1 whose chances differ by seed (standard deviation `spread`) and by problem (up to `hard`)."""
    chance = mean + spread * rng.standard_normal((seeds, 1)) + rng.uniform(-hard, hard, (1, problems))
    return (rng.random((seeds, problems)) < chance).astype(np.float64)


def mean_squares(y: Floats) -> tuple[float, float, float]:
    """The mean squares of seeds, of problems and of the rest, of a two-way table without replication."""
    seeds, problems = y.shape
    rows, columns = y.mean(1, keepdims=True), y.mean(0, keepdims=True)
    rest = y - rows - columns + y.mean()
    return (
        problems * float(((rows - y.mean()) ** 2).sum()) / (seeds - 1),
        seeds * float(((columns - y.mean()) ** 2).sum()) / (problems - 1),
        float((rest**2).sum()) / ((seeds - 1) * (problems - 1)),
    )


def test_the_variance_is_that_of_a_crossed_analysis_of_variance() -> None:
    a, b = (solved(np.random.default_rng(number), 4, 60, spread=0.1) for number in (1, 2))
    found = difference_over_seeds(a, b, SeedSpreads.pooled([a, b]))
    of_seeds, of_problems, rest = mean_squares(a - b)
    variance = (of_seeds + of_problems - rest) / a.size
    share = of_seeds / a.size / variance
    df = 1 / (share / 3 + (1 - share) / 59)
    assert found.high - found.difference == pytest.approx(stats.t.ppf(0.975, df) * variance**0.5)
    assert found.p == pytest.approx(2 * stats.t.sf(abs(found.difference) / variance**0.5, df))


def test_spreads_are_pooled_over_models_with_their_degrees_of_freedom() -> None:
    models = [solved(np.random.default_rng(number), 3, 50, spread=0.1) for number in range(4)]
    spreads = SeedSpreads.pooled(models)
    assert (spreads.mean.df, spreads.difference.df) == (4 * 2, 3 * 2)
    ratios = [m.mean(1).var(ddof=1) / (m.mean() * (1 - m.mean())) for m in models]
    assert spreads.mean.ratio == pytest.approx(np.mean(ratios))


def test_luck_that_two_models_share_by_seed_leaves_their_difference_alone() -> None:
    luck = np.array([[0.2], [0.0], [-0.2]])
    values = np.random.default_rng(0).random((2, 1, 40)) * 0.2
    a, b = 0.5 + luck + values[0], 0.4 + luck + values[1]
    spreads = SeedSpreads.pooled([a, b])
    assert spreads.difference.ratio == pytest.approx(0, abs=1e-20)
    assert mean_over_seeds(a, spreads.mean).high - mean_over_seeds(a, spreads.mean).low > 0.3
    compared = difference_over_seeds(a, b, spreads)
    assert compared.high - compared.low < 0.06


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """The seeds alone are not enough, nor is a bootstrap over them (`benchmarks/seed_coverage.py` has more cases)."""
    rng = np.random.default_rng(5)
    means, differences, bootstraps = [], [], []
    for _ in range(400):
        a, b, c = (solved(rng, 3, 120, mean, 0.05) for mean in (0.6, 0.5, 0.4))
        spreads = SeedSpreads.pooled([a, b, c])
        found, compared = mean_over_seeds(a, spreads.mean), difference_over_seeds(a, b, spreads)
        means.append(found.low <= 0.6 <= found.high)
        differences.append(compared.low <= 0.1 <= compared.high)
        drawn = a.mean(1)[rng.integers(0, 3, (200, 3))].mean(1)
        bootstraps.append(np.quantile(drawn, 0.025) <= 0.6 <= np.quantile(drawn, 0.975))
    assert 0.92 <= np.mean(means) <= 0.98
    assert 0.92 <= np.mean(differences) <= 0.98
    assert np.mean(bootstraps) < 0.85


def test_p_is_below_five_per_cent_where_the_interval_excludes_zero() -> None:
    rng = np.random.default_rng(2)
    for _ in range(50):
        a, b = solved(rng, 3, 80, 0.6, 0.05), solved(rng, 3, 80, 0.5, 0.05)
        found = difference_over_seeds(a, b, SeedSpreads.pooled([a, b]))
        assert (found.p < 0.05) == (found.low > 0 or found.high < 0)


def test_a_model_without_seeds_has_no_seed_part() -> None:
    rng = np.random.default_rng(3)
    a, fixed = solved(rng, 3, 60, 0.6, 0.1), solved(rng, 1, 60)
    spreads = SeedSpreads.pooled([a])
    found = difference_over_seeds(a, fixed, spreads)
    of_seeds, of_problems, rest = mean_squares(a - fixed)
    variance = (of_seeds + of_problems - rest) / a.size
    share = of_seeds / a.size / variance
    df = 1 / (share / 2 + (1 - share) / 59)
    assert found.high - found.difference == pytest.approx(stats.t.ppf(0.975, df) * variance**0.5)


def test_what_sets_tasks_apart_is_no_part_of_a_pooled_interval() -> None:
    rng = np.random.default_rng(4)
    easy, hard = solved(rng, 3, 50, 0.8, hard=0.1), solved(rng, 3, 50, 0.2, hard=0.1)
    a, b = np.hstack([easy, hard]), np.hstack([solved(rng, 3, 50, 0.3, hard=0.1), hard])
    labels = ["easy"] * 50 + ["hard"] * 50
    apart, together = difference_over_seeds(a, b, NONE, labels), difference_over_seeds(a, b, NONE)
    assert apart.difference == together.difference
    assert apart.high - apart.low < together.high - together.low


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_seeds_that_all_agree_on_everything_leave_the_interval_of_the_problems(value: float) -> None:
    same = np.full((3, 200), value)
    found, once = mean_over_seeds(same, Spread(0.01, 4)), mean_interval([value] * 200)
    assert found == pytest.approx(once, abs=1e-3)
    assert found.low < found.high
    compared = difference_over_seeds(same, same, SeedSpreads.pooled([same, same]))
    assert compared.low < 0 < compared.high
    assert compared.p == 1


def test_an_interval_near_the_end_stays_inside_what_a_score_can_be() -> None:
    scores = np.ones((3, 100))
    scores[0, :3] = 0
    found = mean_over_seeds(scores, Spread(0.02, 4))
    assert 0 < found.low < found.mean < found.high <= 1


def test_the_ratio_to_a_model_that_solves_everything_has_the_interval_of_the_difference() -> None:
    a, perfect = solved(np.random.default_rng(6), 3, 60, 0.6, 0.1), np.ones((1, 60))
    spreads = SeedSpreads.pooled([a])
    ratio, compared = ratio_over_seeds(a, perfect, spreads), difference_over_seeds(a, perfect, spreads)
    assert ratio == pytest.approx([100 * (1 + end) for end in (compared.difference, compared.low, compared.high)])


def test_scores_that_cannot_be_paired_are_refused() -> None:
    rng = np.random.default_rng(7)
    with pytest.raises(ValueError, match=r"cannot be paired: a is \(3, 10\), b is \(2, 10\)"):
        difference_over_seeds(solved(rng, 3, 10), solved(rng, 2, 10), NONE)
    with pytest.raises(ValueError, match="two seeds, got 1"):
        mean_over_seeds(solved(rng, 1, 10), NONE.mean)
