"""Statistics of a study: the best arm, the front, what could have been shown, advice on seeds that were held out."""

from collections.abc import Sequence

import numpy as np
import pytest

from smallwit.study.statistics import ArmScores

PROBLEMS = 200


def arms(means: Sequence[float], seeds: int = 5, spread: float = 0.0, seed: int = 0) -> ArmScores:
    """Arms with these true means, whose seeds spread by so much, on problems of the same difficulty for all."""
    rng = np.random.default_rng(seed)
    scores = []
    for mean in means:
        chance = np.clip(mean + spread * rng.standard_normal((seeds, 1)), 0, 1)
        scores.append((rng.random((seeds, PROBLEMS)) < chance).astype(float))
    return ArmScores(scores, ["sums"] * PROBLEMS)


def test_an_arm_far_above_the_others_is_the_best_for_certain() -> None:
    assert arms([0.3, 0.9, 0.4]).best_probability([0, 1, 2])[1] > 0.999


def test_the_probabilities_of_being_the_best_sum_to_one_and_equal_arms_share_them_over_studies() -> None:
    found = np.asarray([arms([0.5] * 4, spread=0.05, seed=n).best_probability(range(4)) for n in range(20)])
    assert found.sum(1) == pytest.approx(1.0)
    assert np.abs(found.mean(0) - 0.25).max() < 0.12


def test_arms_without_any_difference_share_the_probability_and_leave_open_what_the_problems_do() -> None:
    same = np.ones((3, 20))
    scores = ArmScores([same, same], ["sums"] * 20)
    assert scores.best_probability([0, 1]) == [0.5, 0.5]
    assert scores.detectable(0, 1) == pytest.approx(0.16, abs=0.01)


def test_a_seed_spread_as_large_as_the_difference_leaves_the_best_open() -> None:
    clear, open_ = (arms([0.5, 0.55], spread=spread, seed=3).best_probability([0, 1]) for spread in (0.0, 0.1))
    assert max(clear) > 0.95 > max(open_)


def test_equal_seeds_of_five_points_show_about_seven_points_at_five_seeds_and_nine_with_power() -> None:
    found = [arms([0.5] * 8, spread=0.05, seed=n) for n in range(20)]
    half, powered = (np.mean([each.detectable(0, 1, power=power) for each in found]) for power in (0.5, 0.8))
    assert half == pytest.approx(0.07, abs=0.015)
    assert powered == pytest.approx(0.10, abs=0.02)


def test_the_measured_difference_needs_as_many_seeds_as_would_detect_it() -> None:
    scores = arms([0.50, 0.56], spread=0.05, seed=1)
    needed = scores.seeds_needed(0, 1)
    assert needed is not None
    difference = abs(scores.means[0] - scores.means[1])
    assert scores.detectable(0, 1, seeds=needed) <= difference < scores.detectable(0, 1, seeds=needed - 1)


def test_a_difference_below_what_the_problems_can_show_needs_more_problems_and_not_seeds() -> None:
    same = np.repeat((np.arange(PROBLEMS) % 2 == 0).astype(float)[None], 3, axis=0)
    other = 1 - same
    other[:, 0] = same[:, 0]
    assert ArmScores([same, other], ["sums"] * PROBLEMS).seeds_needed(0, 1) is None


def test_the_front_has_the_cheap_and_the_better_and_not_the_dear_and_worse() -> None:
    scores, costs = arms([0.4, 0.8, 0.6]), [1.0, 2.0, 3.0]
    assert scores.front(costs) == [True, True, False]
    probabilities = scores.front_probability(costs)
    assert probabilities[0] == 1.0
    assert probabilities[1] > 0.99 > 0.01 > probabilities[2]


def test_costs_that_differ_by_a_step_count_as_equal() -> None:
    assert arms([0.4, 0.8]).front([1.0, 1.004]) == [False, True]


def test_p_values_are_corrected_for_the_number_of_comparisons() -> None:
    scores = arms([0.5, 0.5, 0.53, 0.6], spread=0.02)
    pairs = scores.compared([(1, 0), (2, 0), (3, 0)])
    smallest = min(pairs, key=lambda pair: pair.compared.p)
    assert smallest.p_holm == pytest.approx(3 * smallest.compared.p)


def test_advice_of_three_seeds_is_checked_on_the_two_others_in_every_split() -> None:
    found = arms([0.2, 0.5, 0.9]).held_out()
    assert found is not None
    assert (found.splits, found.chosen_by, found.held, found.named, found.lost) == (10, 3, 10, 10, 0.0)
    assert found.same_sign == found.shown > 0


def test_advice_that_rests_on_luck_does_not_always_hold() -> None:
    found = arms([0.5] * 6, spread=0.05, seed=3).held_out()
    assert found is not None
    assert found.held < found.splits / 2 < found.named
    assert found.lost > 0


def test_two_seeds_leave_none_to_check_advice_on() -> None:
    assert arms([0.5, 0.6], seeds=2).held_out() is None
