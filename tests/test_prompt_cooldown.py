"""The curriculum of rollouts: problems whose completions all earned alike sit out for a while."""

import pytest
import torch
from torch import Tensor

from smallwit.tasks.base import Problem, Task
from smallwit.training.prompt_cooldown import Pair, PromptCooldown


class Numbers:
    """Ten problems, again and again."""

    size = 10

    def __init__(self) -> None:
        self.task = Task()
        self.task.name = "numbers"

    def __getitem__(self, index: int) -> Pair:
        return self.task, Problem(str(index % 10), "?", None)


STREAM = Numbers()
MIXED, RIGHT, WRONG = [1.0, 0.0], [1.0, 1.0], [0.0, 0.0]


def ids(pairs: list[Pair]) -> list[int]:
    return [int(problem.id) for _, problem in pairs]


def rewards(*rows: list[float]) -> Tensor:
    return torch.tensor(rows)


@pytest.mark.parametrize("alike", [RIGHT, WRONG])
def test_problems_solved_always_or_never_are_passed_over(alike: list[float]) -> None:
    cooldown = PromptCooldown(batches=9)
    first = cooldown.take(STREAM, 0, 5)
    cooldown.note(first, rewards(MIXED, alike, MIXED, alike, MIXED), 0)
    assert ids(cooldown.take(STREAM, 1, 8)) == [5, 6, 7, 8, 9, 0, 2, 4]


def test_they_come_back_when_they_have_rested() -> None:
    cooldown = PromptCooldown(batches=2)
    cooldown.note(cooldown.take(STREAM, 0, 10), rewards(*[MIXED] * 9, RIGHT), 0)
    asked = [ids(cooldown.take(STREAM, batch, 10)) for batch in (1, 2, 3)]
    assert [9 in batch for batch in asked] == [False, False, True]


def test_where_all_rest_they_are_asked_all_the_same() -> None:
    cooldown = PromptCooldown(batches=5)
    cooldown.note(cooldown.take(STREAM, 0, 10), rewards(*[WRONG] * 10), 0)
    assert len(ids(cooldown.take(STREAM, 1, 4))) == 4


def test_an_unknown_reward_is_no_reason_to_rest() -> None:
    cooldown = PromptCooldown(batches=5)
    cooldown.note(cooldown.take(STREAM, 0, 1), rewards([1.0, torch.nan]), 0)
    assert cooldown.until == {}


def test_its_state_is_all_that_it_remembers() -> None:
    cooldown = PromptCooldown(batches=3)
    cooldown.note(cooldown.take(STREAM, 0, 5), rewards(RIGHT, MIXED, WRONG, MIXED, RIGHT), 0)
    other = PromptCooldown(batches=3)
    other.restore(cooldown.state())
    assert ids(other.take(STREAM, 1, 9)) == ids(cooldown.take(STREAM, 1, 9))


def test_those_that_have_rested_are_forgotten() -> None:
    cooldown = PromptCooldown(batches=1)
    for batch in range(20):
        cooldown.note(cooldown.take(STREAM, batch, 2), rewards(RIGHT, RIGHT), batch)
    assert len(cooldown.until) <= 4
