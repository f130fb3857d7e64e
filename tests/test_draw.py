"""A part of a split: a fixed draw by the ids, nested, the same everywhere."""

from collections import Counter
from collections.abc import Iterable, Sequence

import pytest

from smallwit.errors import UserError
from smallwit.tasks import draw
from smallwit.tasks.base import Problem, Task
from smallwit.tasks.draw import drawn, order_of, part, part_of, sample
from smallwit.tasks.wordmath import WordMath
from smallwit.training.problem_stream import TaskProblems


def rows(count: int, name: str = "p") -> list[Problem]:
    return [Problem(f"{name}{i}", "?", "1") for i in range(count)]


class Sorted(Task):
    """A split sorted by subject, as MATH's is."""

    name = "sorted"

    def problems(self, split: str) -> Sequence[Problem]:
        return [*rows(500, "algebra"), *rows(100, "precalculus")]


class Stream(Task):
    """A split without a length."""

    name = "stream"

    def problems(self, split: str) -> Iterable[Problem]:
        yield from rows(30)


class Endless(Task):
    """A stream without an end."""

    name = "endless"

    def problems(self, split: str) -> Iterable[Problem]:
        number = 0
        while True:
            yield Problem(str(number), "?", "1")
            number += 1


def ids(problems: Iterable[Problem]) -> list[str]:
    return [problem.id for problem in problems]


def test_a_part_of_a_sorted_split_has_all_its_subjects_in_their_shares() -> None:
    subjects = Counter(problem.id.rstrip("0123456789") for problem in part_of(Sorted(), "test", 120))
    assert 10 <= subjects["precalculus"] <= 30
    assert subjects.total() == 120


def test_a_smaller_part_is_the_beginning_of_a_larger_one() -> None:
    whole = rows(50)
    assert part(whole, 10) == part(whole, 20)[:10]
    assert sorted(ids(part(whole, 20))) != sorted(ids(whole[:20]))


def test_the_draw_depends_on_nothing_but_the_ids() -> None:
    assert ids(part(rows(9), 4)) == ids(part(rows(9)[::-1], 4)) == ["p8", "p0", "p1", "p7"]


def test_skip_and_count_of_one_order_share_no_problem() -> None:
    whole = rows(40)
    first, second, rest = part(whole, 10), part(whole, 10, skip=10), part(whole, None, skip=20)
    assert sorted(ids([*first, *second, *rest])) == sorted(ids(whole))


def test_a_whole_split_keeps_the_order_of_its_rows() -> None:
    assert part(rows(20), None) == part(rows(20), 20) == part(rows(20), 99) == rows(20)


def test_the_given_order_takes_the_first_rows() -> None:
    assert part(rows(20), 5, order="given") == rows(20)[:5]
    assert part(rows(20), 5, skip=3, order="given") == rows(20)[3:8]


def test_rows_that_share_an_id_are_drawn_one_by_one() -> None:
    four_answers = [Problem(f"p{i}", str(number), "1") for i in range(50) for number in range(4)]
    assert len(set(ids(part(four_answers, 50)))) > 25
    assert part(four_answers, 50) == part(four_answers, 80)[:50]


def test_a_streamed_sample_is_the_part_of_the_same_rows() -> None:
    assert sample(iter(rows(50)), 7, lambda row: row.id) == part(rows(50), 7)
    assert sample(iter(rows(5)), 7, lambda row: row.id) == rows(5)


def test_a_stream_is_read_to_its_end_for_a_draw() -> None:
    assert part_of(Stream(), "test", 5) == drawn(rows(30))[:5]


def test_a_stream_without_an_end_is_refused_unless_its_first_rows_are_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(draw, "LONGEST_STREAM", 100)
    with pytest.raises(UserError, match=r"stream of more than 100.*exchangeable.*order: given"):
        part_of(Endless(), "train", 5)
    assert ids(part_of(Endless(), "train", 3, order="given")) == ["0", "1", "2"]


def test_exchangeable_problems_are_not_made_before_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    draft = WordMath.draft
    monkeypatch.setattr(WordMath, "draft", lambda *given: made.append(1) or draft(*given))  # type: ignore[func-returns-value]
    for split in ("train", "validation", "test"):
        task = WordMath(train=10**9, validation=10**9, test=10**9)
        assert ids(part_of(task, split, 2)) == [f"wordmath-{split}-0", f"wordmath-{split}-1"]
    assert TaskProblems.of(WordMath(), "train", skip=7, limit=10**5).size == 10**5
    assert len(made) < 500


def test_only_a_part_has_an_order() -> None:
    assert order_of(Sorted(), "test", 600, "drawn") is None
    assert order_of(Sorted(), "test", None, "drawn") is None
    assert order_of(Sorted(), "test", 599, "drawn") == "drawn"
    assert order_of(Stream(), "test", 29, "given") == "given"
    assert order_of(WordMath(), "test", 5, "drawn") is None
