"""The math grader against format tricks, and against seeded variants of what other graders get wrong."""

import re
from collections import Counter
from pathlib import Path

import pytest

from math_variants import variants
from smallwit.verify.extract import extract
from smallwit.verify.math import grade_math, grade_math_batch

Trick = tuple[str, str, str, float]

_CHARACTER = re.compile(r"\\u([0-9a-f]{4})|\\U([0-9a-f]{8})")


def tricks() -> list[Trick]:
    """The rows of `math_tricks.tsv`."""
    lines = Path(__file__).with_name("math_tricks.tsv").read_text(encoding="utf-8").split("\n")
    rows = [line.split("\t") for line in lines if line and not line.startswith("#")]
    return [(kind, _characters(gold), _characters(response), float(score)) for kind, gold, response, score in rows]


def _characters(text: str) -> str:
    return _CHARACTER.sub(lambda match: chr(int(match[1] or match[2], 16)), text)


def wrongly_judged(rows: list[Trick]) -> list[tuple[str, str, str, float | None]]:
    verdicts = grade_math_batch([(gold, response) for _, gold, response, _ in rows])
    return [
        (kind, gold, response, verdict.score)
        for (kind, gold, response, score), verdict in zip(rows, verdicts, strict=True)
        if verdict.score != score
    ]


@pytest.mark.slow
def test_tricks_of_format_get_what_they_deserve() -> None:
    rows = tricks()
    assert len(rows) > 300
    assert wrongly_judged(rows) == []


@pytest.mark.slow
def test_a_thousand_variants_of_what_graders_get_wrong() -> None:
    rows = list(variants(seed=13, each=6))
    same = sum(truth == 1.0 for *_, truth in rows)
    assert len(rows) > 1000
    assert same > 400
    wrong = wrongly_judged(rows)
    assert [row for row in wrong if row[3] != 0.0] == []  # false accepts
    assert len(wrong) < 0.01 * same, Counter(row[0] for row in wrong)


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("The answer is 8. No, the answer is 9.", "9"),
        ("Final Answer: The final answer is $12$. I hope it is correct.", "12"),
        ("Final Answer: The number of marbles left is 46.", "46"),
        ("Answer: She has 46 marbles and 3 pens.", "She has 46 marbles and 3 pens"),
        ("The answer is 3 * 4 = 12.", "12"),
        ("The answer is 20 - 8", "20 - 8"),
        ("Answer: C) 14", "C"),
        (r"The answer is \boxed 4.", "4"),
        ("The answer is 5 elevenths.", "5 elevenths"),
        ("The answer is 5 apples, I think.", "5"),
        ("Answer:\nIt is 7", "7"),
        (r"so the probability is $\frac{3}{8}$.", r"\frac{3}{8}"),
        (r"so \(10^3\) of them", "10^3"),
        ("the point is (4, 5).", "(4, 5)"),
        ("that makes 1e3", "1e3"),
        ("so 3/8 of it", "3/8"),
        ("it costs $18 and then $20", "$20"),
        ("$18 + $2 = $20 in all", "$20"),
        ("**Total:** 18", "18"),
        ("- 18 apples", "18"),
        ("* 18", "18"),
        ("> 18", "18"),
        ("=> 18", "18"),
        ("so x = 18.", "18"),
        ("so x < 18.", "x < 18"),
        ("2 * 5", "2 * 5"),
        ("sqrt 5", "sqrt 5"),
        ("5 elevenths of it", "5 elevenths"),
        ("it is 5 \\pi", "5 \\pi"),
        ("it is about 5", "about 5"),
        ("3 out of 8", "of 8"),
        ("5 x 10^3", "5 x 10^3"),
        ("[4, 5]", "[4, 5]"),
        ("It is (18)", "18"),
        ("it is x_5", "x_5"),
    ],
)
def test_the_formula_of_the_last_number(response: str, answer: str) -> None:
    extraction = extract(response)
    assert extraction is not None
    assert (extraction.answer, extraction.strict) == (answer, False)


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        (r"\frac{\pi}{2}", r"\arcsin 1"),
        (r"\sqrt{x-1}", r"(x-1)^{\frac12}"),
        (r"\frac{n!}{(n-2)!}", "n(n-1)"),
        (r"(-1)^n", r"(-1)^{n+2}"),
        (r"f(x+1)", "f(1+x)"),
        (r"y = \sqrt{2}x", r"\sqrt{2}x - y = 0"),
        (r"y > \sqrt{2}x", r"\sqrt{2}x < y"),
        (r"\frac{m}{RT}", r"\frac{m}{R T}"),
        (r"\ln\frac{a}{b}", r"\ln(a/b)"),
    ],
)
def test_formulas_are_equal_where_their_values_are(gold: str, answer: str) -> None:
    assert grade_math(gold, f"\\boxed{{{answer}}}").score == 1.0


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        (r"\sqrt{2}", r"\sqrt{2} + 10^{-900}"),
        (r"x", r"\sqrt{x^2}"),
        (r"2\ln x", r"\ln x^2"),
        ("1", r"\frac{x}{x}"),
        (r"f(2x)", "2f(x)"),
        (r"y = \sqrt{2}x", r"y = 1.41421356237309504880168872420969807856967187537694x"),
        (r"2x", "2 x + 0 y"),
        (r"\frac{1}{2x}", "1/2x"),
        (r"\sin x (x+1)", r"\sin(x(x+1))"),
        (r"\frac{\Delta y}{\Delta x}", r"\frac{y}{x}"),
    ],
)
def test_formulas_differ_where_a_value_does_or_two_readings_do(gold: str, answer: str) -> None:
    assert grade_math(gold, f"\\boxed{{{answer}}}").score == 0.0
