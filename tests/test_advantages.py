"""Advantages: each estimator against plain arithmetic on lists, and what all of them must do with what is not known."""

import math
import statistics

import pytest
import torch
from torch import Tensor

from smallwit.objectives.advantages import (
    EPSILON,
    GROUP_ESTIMATORS,
    generalised_advantages,
    group_advantages,
    has_signal,
    whitened,
)
from smallwit.objectives.settings import GroupEstimator

NAN = math.nan
REWARDS = [
    [0.2, 0.9, 0.4, 0.7],
    [1.0, 0.0, NAN, 0.0],
    [NAN, NAN, NAN, 0.6],
    [NAN, NAN, NAN, NAN],
    [0.3, 0.3, 0.3, 0.3],
    [0.1, 0.1, NAN, 0.1],
]


def plain_group(name: GroupEstimator, rewards: list[float], batch: list[list[float]]) -> list[float]:
    """The estimator's definition for the known rewards of one group that has a signal."""
    mean = statistics.fmean(rewards)
    if name == "group":
        return [(r - mean) / (statistics.stdev(rewards) + EPSILON) for r in rewards]
    if name == "centred":
        return [r - mean for r in rewards]
    if name == "leave_one_out":
        others = [rewards[:i] + rewards[i + 1 :] for i in range(len(rewards))]
        return [r - statistics.fmean(other) for r, other in zip(rewards, others, strict=True)]
    centred = [r - statistics.fmean(group) for group in batch for r in group]
    return [(r - mean) / (statistics.stdev(centred) + EPSILON) for r in rewards]


def plain(name: GroupEstimator, rewards: list[list[float]]) -> Tensor:
    known = [[r for r in group if not math.isnan(r)] for group in rewards]
    result = torch.zeros(len(rewards), len(rewards[0]), dtype=torch.float64)
    for row, group in enumerate(known):
        if len(set(group)) > 1:
            values = iter(plain_group(name, group, [each for each in known if each]))
            for column, reward in enumerate(rewards[row]):
                if not math.isnan(reward):
                    result[row, column] = next(values)
    return result


@pytest.fixture(params=list(GROUP_ESTIMATORS))
def name(request: pytest.FixtureRequest) -> GroupEstimator:
    return request.param


def test_estimators_equal_their_definitions(name: GroupEstimator) -> None:
    ours = GROUP_ESTIMATORS[name](torch.tensor(REWARDS))
    torch.testing.assert_close(ours.double(), plain(name, REWARDS), rtol=1e-5, atol=1e-6)
    assert ours[0].abs().min() > 0


@pytest.mark.parametrize("seed", range(3))
def test_estimators_equal_their_definitions_on_random_rewards(name: GroupEstimator, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    rewards = torch.rand(6, 8, generator=generator)
    rewards[torch.rand(6, 8, generator=generator) < 0.2] = NAN
    ours = GROUP_ESTIMATORS[name](rewards)
    torch.testing.assert_close(ours.double(), plain(name, rewards.double().tolist()), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("reward", [0.0, 1.0, 0.1, 0.3, 1 / 3, 0.7, 37.0])
@pytest.mark.parametrize("group", [2, 3, 6, 8, 11])
def test_equal_rewards_are_exactly_no_signal(name: GroupEstimator, reward: float, group: int) -> None:
    rewards = torch.full((1, group), reward)
    assert not GROUP_ESTIMATORS[name](rewards).any()
    assert not has_signal(rewards)


def test_an_unknown_reward_has_no_advantage_and_changes_no_other(name: GroupEstimator) -> None:
    known = [1.0, 0.0, 0.0, 0.5]
    with_unknown = GROUP_ESTIMATORS[name](torch.tensor([[*known, NAN]]))
    assert with_unknown[0, 4] == 0.0
    assert with_unknown[0, :4].tolist() == pytest.approx(GROUP_ESTIMATORS[name](torch.tensor([known]))[0].tolist())


@pytest.mark.parametrize("name", ["group", "centred", "leave_one_out"], indirect=True)
def test_a_group_changes_no_other_but_by_the_deviation_of_the_batch(name: GroupEstimator) -> None:
    alone = GROUP_ESTIMATORS[name](torch.tensor(REWARDS[:1]))
    assert torch.equal(GROUP_ESTIMATORS[name](torch.tensor(REWARDS))[:1], alone)


def test_advantages_of_a_group_sum_to_zero(name: GroupEstimator) -> None:
    sums = GROUP_ESTIMATORS[name](torch.tensor(REWARDS)).sum(1)
    assert sums.abs().max() < 1e-5


def test_a_group_has_a_signal_when_two_known_rewards_differ() -> None:
    assert has_signal(torch.tensor(REWARDS)).tolist() == [True, True, False, False, False, False]


def test_scale_of_the_rewards_cancels_where_a_deviation_divides() -> None:
    rewards = torch.tensor(REWARDS[:2]) * 1000
    for estimate in (group_advantages, GROUP_ESTIMATORS["batch"]):
        torch.testing.assert_close(estimate(rewards), estimate(rewards * 10), rtol=1e-4, atol=0)


def plain_generalised(rewards: list[float], values: list[float], discount: float, decay: float) -> list[float]:
    """The sum of the definition, term by term."""
    following = [*values, 0.0]
    deltas = [r + discount * following[t + 1] - values[t] for t, r in enumerate(rewards)]
    return [sum((discount * decay) ** (k - t) * deltas[k] for k in range(t, len(deltas))) for t in range(len(deltas))]


@pytest.mark.parametrize(("discount", "decay"), [(1.0, 0.95), (0.9, 0.8), (1.0, 1.0), (0.7, 0.0)])
def test_generalised_advantages_equal_their_definition_on_ragged_sequences(discount: float, decay: float) -> None:
    generator = torch.Generator().manual_seed(0)
    lengths = [5, 1, 3, 0]
    rewards, values = torch.zeros(4, 5, dtype=torch.float64), torch.zeros(4, 5, dtype=torch.float64)
    for row, length in enumerate(lengths):
        rewards[row, :length] = torch.randn(length, generator=generator, dtype=torch.float64)
        values[row, :length] = torch.randn(length, generator=generator, dtype=torch.float64)
    ours = generalised_advantages(rewards, values, discount, decay)
    for row, length in enumerate(lengths):
        expected = plain_generalised(rewards[row, :length].tolist(), values[row, :length].tolist(), discount, decay)
        assert ours[row, :length].tolist() == pytest.approx(expected)
        assert not ours[row, length:].any()


def test_undiscounted_advantages_of_full_decay_are_the_reward_less_the_value() -> None:
    values = torch.randn(2, 4)
    rewards = torch.tensor([[0.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 0.5]])
    advantages = generalised_advantages(rewards, values, 1.0, 1.0)
    torch.testing.assert_close(advantages, rewards[:, -1:] - values)


def test_rewards_and_values_of_different_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\[B, T\]; got \[2, 3\], \[2, 4\]"):
        generalised_advantages(torch.zeros(2, 3), torch.zeros(2, 4), 1.0, 1.0)


def test_whitened_advantages_have_mean_0_and_deviation_1_where_the_mask_is_true() -> None:
    generator = torch.Generator().manual_seed(0)
    advantages = 5 + 3 * torch.randn(4, 6, generator=generator)
    mask = torch.rand(4, 6, generator=generator) < 0.6
    white = whitened(advantages, mask)
    assert not white[~mask].any()
    assert float(white[mask].mean()) == pytest.approx(0.0, abs=1e-6)
    assert float(white[mask].std(correction=0)) == pytest.approx(1.0, abs=1e-3)


def test_whitening_nothing_gives_nothing() -> None:
    assert not whitened(torch.ones(2, 3), torch.zeros(2, 3, dtype=torch.bool)).any()
