"""Which of a problem's accepted answers are kept."""

from itertools import combinations

import pytest

from smallwit.data.response_selection import ResponseSelection, jaccard_distance, word_ngrams

ANSWERS = [
    "4 + 4 = 8, so 8 apples\n#### 8",
    "4 + 4 = 8\n#### 8",
    "four and four more make eight\n#### 8",
    "4 + 4 = 8\n#### 8",
    "4 + 4 = 8, so he has 8 apples in all\n#### 8",
    "2 * 4 = 8, that is twice four\n#### 8",
]


def chosen(rule: str, count: int | None = None, answers: list[str] = ANSWERS) -> list[str]:
    return [answers[place] for place in ResponseSelection(rule=rule, count=count).select(answers)]


def test_all_keeps_each_text_once() -> None:
    assert chosen("all") == [*ANSWERS[:3], *ANSWERS[4:]]


def test_shortest_is_one_answer() -> None:
    assert chosen("shortest") == ["4 + 4 = 8\n#### 8"]


def test_several_shortest_come_by_length() -> None:
    assert [len(text) for text in chosen("shortest", 3)] == sorted({len(text) for text in ANSWERS})[:3]


def test_mixed_goes_from_the_shortest_to_the_longest() -> None:
    lengths = sorted(len(text) for text in set(ANSWERS))
    assert [len(text) for text in chosen("mixed", 3)] == [lengths[0], lengths[2], lengths[-1]]


def test_diverse_are_farther_apart_than_the_shortest() -> None:
    def nearest(texts: list[str]) -> float:
        return min(jaccard_distance(word_ngrams(a), word_ngrams(b)) for a, b in combinations(texts, 2))

    assert nearest(chosen("diverse", 3)) > nearest(chosen("shortest", 3))


def test_diverse_begins_with_the_shortest_and_the_least_like_it() -> None:
    first, second = chosen("diverse", 2)
    runs = {text: word_ngrams(text) for text in set(ANSWERS)}
    assert first == "4 + 4 = 8\n#### 8"
    assert jaccard_distance(runs[first], runs[second]) == max(
        jaccard_distance(runs[first], other) for other in runs.values()
    )


@pytest.mark.parametrize("rule", ["shortest", "diverse", "mixed"])
def test_fewer_answers_than_wanted_are_all_kept(rule: str) -> None:
    assert sorted(chosen(rule, 9)) == sorted(set(ANSWERS))


@pytest.mark.parametrize("rule", ["all", "shortest", "diverse", "mixed"])
def test_no_answer_is_nothing_to_keep(rule: str) -> None:
    assert ResponseSelection(rule=rule).select([]) == []


def test_texts_that_differ_in_one_number_are_different() -> None:
    assert jaccard_distance(word_ngrams("3 + 4 = 7"), word_ngrams("3 + 5 = 8")) > 0
    assert jaccard_distance(word_ngrams("3 + 4 = 7"), word_ngrams("3  +  4 =\n7")) == 0
