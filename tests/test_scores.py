"""Scores from sample rows against counting by hand, exact enumeration and scipy."""

import io
import re
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from itertools import combinations, product
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from scipy import stats

from smallwit.evaluation.canonical import canonical_answer
from smallwit.evaluation.scores import by_stratum, majority_at_k, pass_at_k, problem_means, scores
from smallwit.evaluation.scores_table import print_scores

Row = dict[str, Any]


def row(problem: str, score: float | None, answer: str | None = "1", sample: int = 0, **other: Any) -> Row:
    reason = "infrastructure" if score is None else "correct" if score else "wrong" if answer else "no-answer"
    about = {"reason": reason, "tokens": 10, "truncated": False, "several": False}
    return (
        {"id": problem, "sample": sample, "score": score, "strict": score, "answer": answer, "gold": "1"}
        | about
        | other
    )


def sampled(
    outcomes: Sequence[Sequence[float | None]], answers: Sequence[Sequence[str | None]] | None = None
) -> list[Row]:
    """Rows of problems p0, p1, ... with several samples each."""
    return [
        row(f"p{i}", score, answers[i][j] if answers else "right" if score else f"wrong {j}", j)
        for i, problem in enumerate(outcomes)
        for j, score in enumerate(problem)
    ]


@pytest.mark.parametrize(("n", "correct", "k"), [(5, 2, 3), (6, 0, 2), (6, 6, 4), (7, 3, 1), (8, 1, 8), (4, 3, 2)])
def test_pass_at_k_is_the_share_of_subsets_with_a_right_sample(n: int, correct: int, k: int) -> None:
    subsets = list(combinations([True] * correct + [False] * (n - correct), k))
    assert pass_at_k(n, correct, k) == pytest.approx(sum(map(any, subsets)) / len(subsets))


def test_pass_at_k_is_unbiased() -> None:
    # Over all outcomes of 5 samples that are right with probability 1/3: its expectation is 1 - (2/3)^k.
    chance = Fraction(1, 3)
    for k in (1, 2, 4):
        expected = sum(
            chance ** sum(outcome) * (1 - chance) ** (5 - sum(outcome)) * Fraction(pass_at_k(5, sum(outcome), k))
            for outcome in product((0, 1), repeat=5)
        )
        assert float(expected) == pytest.approx(float(1 - (1 - chance) ** k))


def test_pass_at_more_samples_than_there_are_is_refused() -> None:
    with pytest.raises(ValueError, match="pass@4 of 3"):
        pass_at_k(3, 1, 4)


def test_the_majority_is_of_answers_and_not_of_spellings() -> None:
    answers = [[r"\frac{1}{2}", "0.5", "1/2", "2", "2"]]
    result = scores(sampled([[1, 1, 1, 0, 0]], answers))
    assert result.lenient.majority_at[5].mean == 1.0
    assert majority_at_k([1, 1, 1, 0, 0], answers[0], 5) == 0.0


def test_programs_have_no_majority() -> None:
    rows = [row("a", 1.0, "def f(): ...", sample, gold={"tests": "assert f()"}) for sample in range(4)]
    assert scores(rows).lenient.majority_at == {}


def test_a_tie_is_worth_what_drawing_one_of_the_first_would_be() -> None:
    assert majority_at_k([1, 0, 0, 1], ["a", "b", "b", "a"], 4) == 0.5
    assert majority_at_k([1, 0, 0], ["a", "b", "c"], 3) == pytest.approx(1 / 3)


def test_responses_without_an_answer_do_not_vote() -> None:
    assert majority_at_k([0, 0, 1], [None, None, "a"], 3) == 1.0
    assert majority_at_k([0, 0, 0], [None, None, None], 3) == 0.0


def test_majority_of_k_agrees_with_a_plain_count_on_random_votes() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        keys = [str(key) for key in rng.integers(0, 3, size=7)]
        ranked = Counter(keys).most_common()
        first = [key for key, count in ranked if count == ranked[0][1]]
        expected = ("0" in first) / len(first)
        assert majority_at_k([float(key == "0") for key in keys], keys, 7) == pytest.approx(expected)


def test_majority_of_fewer_samples_takes_them_in_groups_in_order() -> None:
    assert majority_at_k([1, 1, 0, 0, 0, 1, 1], ["a", "a", "b", "b", "b", "a", "a"], 3) == 0.5


def test_one_binary_sample_a_problem_gets_wilsons_interval() -> None:
    result = scores([row(str(i), float(i < 30)) for i in range(40)]).lenient.mean
    wilson = stats.binomtest(30, 40).proportion_ci(method="wilson")
    assert (result.mean, result.n) == (0.75, 40)
    assert (result.low, result.high) == pytest.approx((wilson.low, wilson.high))


def test_several_samples_are_clustered_by_problem() -> None:
    # Samples of a problem agree with each other: eight times the samples, and no more certainty.
    solved = [1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0]
    once = scores(sampled([[score] for score in solved])).lenient.mean
    assert scores(sampled([[score] * 8 for score in solved])).lenient.mean == once
    mixed = [[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0], [1, 1, 1, 0]]
    means = [float(np.mean(problem)) for problem in mixed]
    expected = stats.t.interval(0.95, 4, loc=np.mean(means), scale=stats.sem(means))
    result = scores(sampled(mixed)).lenient.mean
    assert (result.mean, result.low, result.high) == pytest.approx((np.mean(means), *expected))


def test_pass_and_majority_are_given_for_powers_of_two_and_all_samples() -> None:
    result = scores(sampled([[1, 0, 0, 0, 1, 0], [0, 0, 0, 0, 0, 0]])).lenient
    assert list(result.pass_at) == [2, 4, 6]
    assert list(result.majority_at) == [4, 6]
    assert result.pass_at[2].mean == pytest.approx((1 - 6 / 15) / 2)
    assert scores(sampled([[1], [0]])).lenient.pass_at == {}


def test_a_problem_with_fewer_samples_is_left_out_of_pass_at_more_and_that_is_said() -> None:
    found = scores(sampled([[1, 0, 0, 0], [0, 1], [0, 0], [1]]))
    assert (found.fewest, found.most) == (1, 4)
    assert found.lenient.mean.mean == pytest.approx((0.25 + 0.5 + 0 + 1) / 4)
    assert [(k, e.n) for k, e in found.lenient.pass_at.items()] == [(2, 3), (4, 1)]
    assert found.lenient.pass_at[2].mean == pytest.approx((0.5 + 1 + 0) / 3)
    entry = found.as_json()["pass_at"]
    assert (entry["2"]["n"], entry["4"]["n"]) == (3, 1)
    console = Console(file=io.StringIO(), width=100)
    print_scores({"m": {"t": found}}, {"m": {"t": "s"}}, console)
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert "4x1-4" in printed
    assert re.search(r"pass@2 50\.0 \(0\.0-100\.0; n 3 of 4\), pass@4 100\.0 \([0-9.-]+; n 1 of 4\)", printed)
    whole = scores(sampled([[1, 0], [0, 1]]))
    print_scores({"m": {"t": whole}}, {"m": {"t": "s"}}, console)
    assert "n 2 of 2" not in console.file.getvalue()  # type: ignore[attr-defined]


def test_strict_and_lenient_are_read_side_by_side() -> None:
    result = scores([row("a", 1.0), row("b", 1.0, strict=0.0), row("c", 0.0)])
    assert result.lenient.mean.mean == pytest.approx(2 / 3)
    assert result.strict.mean.mean == pytest.approx(1 / 3)


def test_a_missing_verdict_is_left_out_and_bounded() -> None:
    result = scores([row("a", 1.0), row("b", 0.0), row("c", None), row("d", 1.0)])
    assert result.lenient.mean.mean == pytest.approx(2 / 3)
    assert result.lenient.mean.bounds == (0.5, 0.75)
    assert (result.lenient.mean.n, result.problems, result.unverified) == (3, 4, 1)


def test_a_missing_verdict_among_several_bounds_every_number() -> None:
    result = scores(sampled([[1, None, 0, 0], [1, 1, 1, 1]], [["a", "b", "c", "d"], ["a"] * 4])).lenient
    assert result.mean.mean == pytest.approx((1 / 3 + 1) / 2)
    assert result.mean.bounds == (0.625, 0.75)
    assert result.pass_at[2].bounds == pytest.approx(((0.5 + 1) / 2, (5 / 6 + 1) / 2))
    assert result.pass_at[4].n == 1
    assert result.majority_at[4].bounds == pytest.approx((0.625, 0.75))


def test_rates_count_samples() -> None:
    rows = [
        row("a", 1.0, several=True),
        row("b", 0.0, None, truncated=True),
        row("c", 0.0, reason="limit"),
        row("d", None),
    ]
    result = scores(rows)
    assert (result.truncated, result.no_answer, result.several) == (0.25, 0.25, 0.25)
    assert (result.over_limit, result.unverified) == (0.25, 1)


def test_what_stored_responses_do_not_tell_is_not_made_up() -> None:
    result = scores([row("a", 1.0, tokens=None, truncated=None, several=None)])
    assert (result.truncated, result.several, result.mean_tokens, result.p95_tokens) == (None, None, None, None)


def test_lengths_are_the_mean_and_a_length_that_was_measured() -> None:
    result = scores([row(str(i), 1.0, tokens=i) for i in range(1, 101)])
    assert (result.mean_tokens, result.p95_tokens) == (50.5, 95.0)


@pytest.mark.parametrize(("rows", "message"), [([], "no sample"), ([row("a", None)], "no sample of 1 has a verdict")])
def test_a_task_without_any_verdict_has_no_score(rows: list[Row], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        scores(rows)


def test_the_json_entry_holds_what_the_contract_names() -> None:
    entry = scores(sampled([[1, 0, 1, None], [0, 0, 0, 0]])).as_json()
    assert {"mean", "low", "high", "strict", "n"} <= entry.keys()
    assert entry["n"] == 2
    assert entry["bounds"] == entry["strict_bounds"] == [0.25, 0.375]
    assert entry["pass_at"]["2"]["mean"] == pytest.approx(0.5)


def test_problem_means_leave_out_problems_without_a_verdict() -> None:
    assert problem_means(sampled([[1, 0], [None, None], [None, 1]])) == {"p0": 0.5, "p2": 1.0}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1,234", "1234"),
        (r"\dfrac{3}{6}", "0.5"),
        (r"\$18", "18.00"),
        ("50", r"50\%"),
        ("x = 5", "5"),
        ("{3, 1, 2}", r"\{1,2,3\}"),
        ("1, 2", "2 and 1"),
        (r"\left( 3, \frac{1}{2} \right)", "(3, 0.5)"),
        (r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", r"\begin{bmatrix}1.0&2\\3&4\end{bmatrix}"),
        (r"\text{Evelyn}", "evelyn"),
        (r"\frac{\pi}{2}", r"\dfrac{ \pi }{2}"),
        ("−7", "-7"),
    ],
)
def test_equal_answers_have_one_key(one: str, other: str) -> None:
    assert canonical_answer(one) == canonical_answer(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("(1, 2)", "[1, 2]"),
        ("(1, 2)", "(2, 1)"),
        ("7", "-7"),
        ("x", "X"),
        ("1, 2", "1, 3"),
        (r"\sqrt{2}", "2"),
        ("12", "1, 2"),
    ],
)
def test_different_answers_have_different_keys(one: str, other: str) -> None:
    assert canonical_answer(one) != canonical_answer(other)


def test_an_answer_over_the_limits_keeps_its_own_text() -> None:
    assert canonical_answer("9^9^9^9^9") == "9^9^9^9^9"


def test_strata_have_the_scores_of_their_problems() -> None:
    rows = [row("a", 1.0), row("b", 0.0), row("c", 1.0), row("d", None)]
    strata = {"a": (("subject", "algebra"),), "b": (("subject", "algebra"),), "c": (("subject", "geometry"),)}
    found = by_stratum(rows, strata | {"d": (("subject", "precalculus"),)})["subject"]
    assert list(found) == ["algebra", "geometry", "precalculus"]
    alone = scores(rows[:2]).as_json()
    assert found["algebra"] == {key: alone[key] for key in ("mean", "low", "high", "strict", "n")}
    assert (found["geometry"]["mean"], found["geometry"]["n"]) == (1.0, 1)
    assert (found["precalculus"]["mean"], found["precalculus"]["n"]) == (None, 0)


def test_problems_without_strata_give_none() -> None:
    assert by_stratum([row("a", 1.0)], {}) == {}
