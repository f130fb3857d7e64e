"""Intervals and tests against closed forms, against scipy, and against what they promise: coverage."""

import math
import time

import numpy as np
import pytest
from scipy import stats

from smallwit.evaluation.statistics import (
    mean_interval,
    paired_comparison,
    ratio_interval,
)


def zeros_and_ones(right: int, n: int) -> list[float]:
    return [1.0] * right + [0.0] * (n - right)


def wilson_by_hand(right: int, n: int, z: float = 1.959963984540054) -> tuple[float, float]:
    share = right / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return centre - half, centre + half


@pytest.mark.parametrize(("right", "n"), [(8, 10), (0, 10), (10, 10), (1, 1), (250, 500), (470, 500)])
def test_wilson_interval_equals_the_closed_form(right: int, n: int) -> None:
    mean, low, high = mean_interval(zeros_and_ones(right, n))
    assert mean == right / n
    assert (low, high) == pytest.approx(wilson_by_hand(right, n), abs=1e-12)


def test_wilson_interval_of_eight_in_ten_is_the_published_one() -> None:
    assert mean_interval(zeros_and_ones(8, 10))[1:] == pytest.approx((0.4902, 0.9433), abs=5e-5)


def test_half_width_near_one_half_matches_the_known_benchmark_sizes() -> None:
    for n, half in ((1319, 0.027), (500, 0.044), (164, 0.077)):  # GSM8K, MATH-500, HumanEval
        _, low, high = mean_interval(zeros_and_ones(n // 2, n))
        assert (high - low) / 2 == pytest.approx(half, abs=0.0015)


def test_fractional_scores_get_a_t_interval() -> None:
    scores = [0.25, 0.5, 0.75, 1.0, 0.5]
    expected = stats.t.interval(0.9, 4, loc=0.6, scale=stats.sem(scores))
    assert mean_interval(scores, level=0.9) == pytest.approx((0.6, *expected))


def test_t_interval_is_cut_to_what_a_score_can_be_and_knows_nothing_from_one_score() -> None:
    assert mean_interval([0.9, 1.0, 1.0]).high == 1.0
    assert mean_interval([0.5]) == (0.5, 0.0, 1.0)


def test_wilson_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    for truth in (0.5, 0.93):
        intervals = [mean_interval(zeros_and_ones(int(k), 100)) for k in rng.binomial(100, truth, size=500)]
        covered = np.mean([low <= truth <= high for _, low, high in intervals])
        assert 0.925 < covered < 0.985


@pytest.mark.parametrize(("won", "lost", "ties"), [(9, 1, 90), (1, 9, 0), (5, 5, 3), (40, 12, 448), (3, 0, 7)])
def test_p_is_the_exact_mcnemar_test_on_discordant_pairs(won: int, lost: int, ties: int) -> None:
    a = [1.0] * won + [0.0] * lost + [1.0] * ties
    b = [0.0] * won + [1.0] * lost + [1.0] * ties
    result = paired_comparison(a, b)
    n, smaller = won + lost, min(won, lost)
    by_hand = min(1.0, 2 * sum(math.comb(n, k) for k in range(smaller + 1)) / 2**n)
    assert result.p == pytest.approx(by_hand)
    assert result.p == pytest.approx(stats.binomtest(won, n, 0.5).pvalue)
    assert result.difference == pytest.approx((won - lost) / (n + ties))
    assert result.low <= result.difference <= result.high


def test_equal_systems_show_no_difference() -> None:
    result = paired_comparison([1.0, 0.0, 1.0], [1.0, 0.0, 1.0])
    assert (result.difference, result.p) == (0.0, 1.0)
    assert paired_comparison([0.5, 0.25], [0.5, 0.25]).p == 1.0


@pytest.mark.parametrize("n", [3, 40, 500])
@pytest.mark.parametrize("score", [0.0, 0.5, 1.0])
def test_problems_without_a_difference_leave_open_what_wilson_leaves_open(n: int, score: float) -> None:
    result = paired_comparison([score] * n, [score] * n)
    most = stats.binomtest(0, n).proportion_ci(method="wilson").high
    assert (result.low, result.high) == pytest.approx((-most, most))


def test_problems_that_are_all_won_leave_open_what_wilson_leaves_open() -> None:
    result = paired_comparison([1.0] * 20, [0.0] * 20)
    most = stats.binomtest(0, 20).proportion_ci(method="wilson").high
    assert (result.difference, result.high) == (1.0, pytest.approx(1.0))
    assert result.low == pytest.approx(1.0 - 2 * most)  # each of the others may be lost


def test_bootstrap_interval_agrees_with_the_normal_one_on_many_problems() -> None:
    rng = np.random.default_rng(2)
    for fractional in (False, True):
        a, b = rng.random(2000), rng.random(2000)
        if not fractional:
            a, b = (a < 0.8).astype(float), (b < 0.7).astype(float)
        result = paired_comparison(list(a), list(b))
        half = 1.96 * (a - b).std() / math.sqrt(2000)
        assert (result.high - result.low) / 2 == pytest.approx(half, rel=0.04)
        assert (result.high + result.low) / 2 == pytest.approx(result.difference, abs=half * 0.08)


def test_p_of_fractional_scores_follows_the_paired_t_test() -> None:
    rng = np.random.default_rng(3)
    for shift in (0.0, 0.03, 0.05, 0.2):
        b = rng.uniform(0.0, 0.8, size=300)
        a = np.clip(b + shift + rng.normal(0.0, 0.35, size=300), 0.0, 1.0)
        expected = float(stats.ttest_rel(a, b).pvalue)
        assert paired_comparison(list(a), list(b)).p == pytest.approx(expected, abs=0.02)


@pytest.mark.slow
def test_null_comparisons_are_called_significant_about_as_often_as_they_should() -> None:
    rng = np.random.default_rng(4)
    grid = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
    results = [paired_comparison(list(rng.choice(grid, 80)), list(rng.choice(grid, 80))) for _ in range(200)]
    assert 0.02 < np.mean([result.p < 0.05 for result in results]) < 0.09
    assert 0.91 < np.mean([result.low <= 0 <= result.high for result in results]) < 0.985


def test_strata_keep_each_tasks_share_of_the_pool() -> None:
    # One task always gains, the other never: all the spread there is comes from a task's share of the resample.
    a, b = [1.0] * 50 + [0.0] * 50, [0.0] * 100
    strata = ["wordmath"] * 50 + ["algebra"] * 50
    loose, fixed = paired_comparison(a, b), paired_comparison(a, b, strata=strata)
    assert loose.high - loose.low > 0.15
    assert (fixed.low, fixed.high) == (0.5, 0.5)
    assert fixed.p == loose.p


def test_both_ways_of_resampling_give_the_same_interval() -> None:
    # 64 and 65 distinct values lie on the two sides of the switch from drawing counts to drawing rows.
    few = np.tile(np.linspace(0, 1, 64), 20)
    many = np.tile(np.linspace(0, 1, 65), 20)
    widths = [r.high - r.low for r in (paired_comparison(list(v), [0.0] * len(v)) for v in (few, many))]
    assert widths[0] * math.sqrt(len(few)) == pytest.approx(widths[1] * math.sqrt(len(many)), rel=0.05)


def test_ratio_is_per_cent_of_the_other_with_an_interval() -> None:
    teacher = zeros_and_ones(450, 500)
    student = zeros_and_ones(405, 500)
    percent, low, high = ratio_interval(student, teacher)
    assert percent == pytest.approx(90.0)
    assert 86 < low < 90 < high < 93.5
    assert ratio_interval(teacher, teacher) == pytest.approx((100.0, 100.0, 100.0))


def test_ratio_interval_is_wider_when_the_pairing_is_thrown_away() -> None:
    teacher, student = zeros_and_ones(450, 500), zeros_and_ones(405, 500)
    paired, apart = ratio_interval(student, teacher), ratio_interval(student, teacher, paired=False)
    assert apart.mean == pytest.approx(paired.mean)
    assert apart.high - apart.low > 1.2 * (paired.high - paired.low)
    # The delta method for a ratio of independent means.
    relative = math.sqrt(0.81 * 0.19 / 500 / 0.81**2 + 0.9 * 0.1 / 500 / 0.9**2)
    assert apart.high - apart.low == pytest.approx(2 * 1.96 * 90 * relative, rel=0.05)
    assert ratio_interval([1.0, 0.0], [1.0, 1.0, 1.0], paired=False).mean == pytest.approx(50.0)


def test_ratio_to_a_teacher_that_solves_nothing_is_not_a_number() -> None:
    assert all(math.isnan(value) for value in ratio_interval([1.0, 0.0], [0.0, 0.0]))
    assert ratio_interval([1.0] * 4, [1.0, 0.0, 0.0, 0.0]).high == math.inf


def test_the_same_seed_gives_the_same_numbers_and_another_seed_others() -> None:
    rng = np.random.default_rng(5)
    a, b = list(rng.random(200)), list(rng.random(200))
    assert paired_comparison(a, b, seed=7) == paired_comparison(a, b, seed=7)
    assert paired_comparison(a, b, seed=7) != paired_comparison(a, b, seed=8)
    assert ratio_interval(a, b, seed=7) == ratio_interval(a, b, seed=7)


def test_fifteen_hundred_fractional_problems_take_less_than_half_a_second() -> None:
    rng = np.random.default_rng(6)
    a, b = list(rng.random(1500)), list(rng.random(1500))
    # Processor time, and the best of three: a busy machine must not fail the test.
    times = []
    for _ in range(3):
        start = time.process_time()
        paired_comparison(a, b)
        times.append(time.process_time() - start)
    assert min(times) < 0.5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mean_interval([]), "non-empty"),
        (lambda: mean_interval([0.5, 1.5]), r"0\.\.1"),
        (lambda: mean_interval([math.nan]), r"0\.\.1"),
        (lambda: mean_interval([1.0, None]), "None"),  # type: ignore[list-item]
        (lambda: paired_comparison([1.0], [1.0, 0.0]), "a has 1, b has 2"),
        (lambda: paired_comparison([1.0, 0.0], [1.0, 0.0], strata=["x"]), "1 labels for 2"),
        (lambda: ratio_interval([1.0], [1.0], paired=False, strata=["x"]), "paired"),
    ],
)
def test_what_cannot_be_computed_is_refused_by_name(call, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        call()
