"""Tasks of a source are mixed by weights: any prefix has each within one problem of its share."""

from collections import Counter
from collections.abc import Sequence
from fractions import Fraction

import pytest

from smallwit.errors import UserError
from smallwit.tasks.base import Problem, Task
from smallwit.training.problem_stream import Mixture, ProblemStream, TaskProblems


def parts(**sizes: int) -> list[TaskProblems]:
    rows = {name: [Problem(f"{name}{i}", "?", "1") for i in range(size)] for name, size in sizes.items()}
    return [TaskProblems(Named(name), of, 0, len(of)) for name, of in rows.items()]


class Named(Task):
    def __init__(self, name: str) -> None:
        self.name = name


def test_by_size_an_epoch_has_every_problem_of_every_task_once() -> None:
    mixed = ProblemStream(parts(a=374, b=7), 0, "name")
    for epoch in range(2):
        drawn = [mixed[epoch * mixed.size + i] for i in range(mixed.size)]
        assert Counter(Counter(problem.id for _, problem in drawn).values()) == {1: 381}


def test_equal_weights_are_turns() -> None:
    mixed = ProblemStream(parts(a=5, b=50), 0, "name", weights="equal")
    drawn = [mixed[i] for i in range(20)]
    assert [task.name for task, _ in drawn] == ["a", "b"] * 10
    assert set(Counter(problem.id for task, problem in drawn if task.name == "a").values()) == {2}


@pytest.mark.parametrize("weights", [(1, 1, 2), (374, 7099, 7125), (0.7, 0.1, 0.2), (1, 1000), (3, 3, 3), (5,)])
def test_any_prefix_has_each_task_within_one_problem_of_its_share(weights: Sequence[float]) -> None:
    mixture = Mixture([Fraction(str(weight)) for weight in weights])
    seen: Counter[int] = Counter()
    for position in range(3000):
        which, nth = mixture.place(position)
        assert nth == seen[which]
        seen[which] += 1
        for task, weight in enumerate(weights):
            assert abs(seen[task] - (position + 1) * weight / sum(weights)) < 1
        if position % 500 == 7:
            assert mixture.shares(position + 1) == [seen[task] for task in range(len(weights))]


def test_an_item_of_a_mixture_does_not_depend_on_what_was_asked_before() -> None:
    weights = {"a": 2.0, "b": 0.3}
    forwards = ProblemStream(parts(a=9, b=40), 3, "name", weights=weights)
    expected = [forwards[i][1] for i in range(60)]
    backwards = ProblemStream(parts(a=9, b=40), 3, "name", weights=weights)
    assert [backwards[i][1] for i in reversed(range(60))] == expected[::-1]
    assert [ProblemStream(parts(a=9, b=40), 4, "name", weights=weights)[i][1] for i in range(60)] != expected


def test_a_task_without_a_weight_is_refused() -> None:
    with pytest.raises(UserError, match="weights has no number for b"):
        ProblemStream(parts(a=9, b=40), 3, "name", weights={"a": 1})
