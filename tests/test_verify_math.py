"""The math grader: what it reads, what it calls equal, and what it survives."""

import time
from fractions import Fraction
from pathlib import Path
from statistics import median

import pytest

from smallwit.verify import math_pool
from smallwit.verify.extract import boxed, extract, last_number
from smallwit.verify.math import grade_math, grade_math_batch, several_boxes
from smallwit.verify.math_formula import read_relation
from smallwit.verify.math_limits import over_limit
from smallwit.verify.math_tokens import Unreadable
from smallwit.verify.numbers import read_number

# ---- what is called equal


def labelled(label: str) -> list[tuple[str, str]]:
    """The pairs of `math_pairs.tsv` with this label."""
    lines = Path(__file__).with_name("math_pairs.tsv").read_text(encoding="utf-8").split("\n")
    rows = [line.split("\t") for line in lines if line and not line.startswith("#")]
    return [(gold, answer) for named, gold, answer in rows if named == label]


def in_boxes(pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(gold, f"So it is \\boxed{{{answer}}}.") for gold, answer in pairs]


@pytest.mark.slow
def test_labelled_pairs_that_say_the_same() -> None:
    pairs = labelled("same")
    verdicts = grade_math_batch(in_boxes(pairs))
    assert len(pairs) > 150
    assert [pair for pair, verdict in zip(pairs, verdicts, strict=True) if verdict.score != 1.0] == []
    assert all(verdict.strict == 1.0 and verdict.reason == "correct" for verdict in verdicts)


@pytest.mark.slow
def test_labelled_pairs_that_differ() -> None:
    pairs = labelled("different")
    verdicts = grade_math_batch(in_boxes(pairs))
    assert len(pairs) > 150
    assert [pair for pair, verdict in zip(pairs, verdicts, strict=True) if verdict.score != 0.0] == []


# ---- numbers


@pytest.mark.parametrize(
    ("text", "value", "unit"),
    [
        ("18", 18, None),
        ("-1,234.50", Fraction(-2469, 2), None),
        (r"\$32,\!348", 32348, "$"),
        (r"3\frac{1}{2}", Fraction(7, 2), None),
        ("2 1/4", Fraction(9, 4), None),
        (r"50\%", 50, "%"),
        (r"440\text{ cm}^2", 440, "cm^2"),
        (r"12 \text{ square feet}", 12, "ft^2"),
        (r"1.5 \times 10^{-2}", Fraction(3, 200), None),
        ("2 dozen eggs", 24, None),
        ("60 miles per hour", 60, "mi/h"),
        ("9.8 \\text{ m/s}^2", Fraction(49, 5), "m/s^2"),
        (r"28 \text{ N}", 28, "N"),
        (r"111, \! 111, \! 111", 111111111, None),
    ],
)
def test_numbers_that_are_read(text: str, value: Fraction | int, unit: str | None) -> None:
    quantity = read_number(text)
    assert quantity is not None
    assert (quantity.value, quantity.unit) == (value, unit)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "five",
        "1, 2",
        "1 2",
        "12,34",
        "1.2.3",
        "--5",
        "5x",
        "5!",
        "5^2",
        "5 or 6",
        "1/0",
        r"\frac{1}{0}",
        "3:30",
        "５",
        "5 and a half",
        "1e999",
        "9" * 1000,
        r"2 \frac{3}{2}",
        r"5\mathrm{i}",
        "5 ft 3 in",
        "$",
        "%",
        "-",
        ".",
        r"\frac{}{2}",
    ],
)
def test_what_is_no_number(text: str) -> None:
    assert read_number(text) is None


def test_numeric_path_takes_far_less_than_a_millisecond() -> None:
    response = "Natalia sold 48/2 = 24 clips in May.\n" * 5 + r"Altogether she sold \boxed{\$1,072.00} clips."
    seconds = []
    for _ in range(200):
        start = time.perf_counter()
        verdict = grade_math("1072", response)
        seconds.append(time.perf_counter() - start)
    assert verdict.score == 1.0
    assert median(seconds) < 1e-3


# ---- where the answer is looked for


@pytest.mark.parametrize(
    ("response", "answer", "score", "strict"),
    [
        (r"First \boxed{7}, no: \boxed{18}", "18", 1.0, 1.0),
        (r"First \boxed{18}, no: \boxed{7}", "7", 0.0, 0.0),
        (r"\boxed{\frac{36}{2}}", r"\frac{36}{2}", 1.0, 1.0),
        (r"\boxed{18} or else \boxed{19", "18", 1.0, 1.0),
        (r"It is \boxed{18", "18", 1.0, 0.0),
        (r"{ loose \boxed{18} } }", "18", 1.0, 1.0),
        (r"Put it into \boxed{}. The answer is 18.", "18", 1.0, 0.0),
        ("48 / 2 = 24\n#### 18", "18", 1.0, 1.0),
        ("#### 7\nNo.\n#### $18.00 \n", "$18.00", 1.0, 1.0),
        ("#### 7\n\\boxed{18}", "18", 1.0, 1.0),
        ("#### 2. Add them up\nThe answer is 18.", "18", 1.0, 0.0),
        ("#### Final answer\n**18**", "18", 1.0, 0.0),
        ("The answer is 18, as 20 - 2 = 18.", "18", 1.0, 0.0),
        ("**Answer:** 18 apples", "18", 1.0, 0.0),
        ("The final answer is $18$. I hope it is correct.", "18", 1.0, 0.0),
        ("The answer is 17. There are 18 boxes.", "17", 0.0, 0.0),
        ("The answer is 18 or 19.", "18 or 19", 0.0, 0.0),
        ("The answer is 18 and that is it.", "18", 1.0, 0.0),
        ("She has 20 - 2 = 18 left.", "18", 1.0, 0.0),
        ("She has 20-2", "20-2", 1.0, 0.0),  # the whole formula, as in a box
        ("She has 20 - 3", "20 - 3", 0.0, 0.0),
        ("She pays $1,018.50.", "$1,018.50", 0.0, 0.0),
    ],
)
def test_strict_and_lenient_reading(response: str, answer: str, score: float, strict: float) -> None:
    verdict = grade_math("18", response)
    assert (verdict.answer, verdict.score, verdict.strict) == (answer, score, strict)


def test_no_answer() -> None:
    for response in ("", "I do not know.", "\\boxed{}", "\\boxed{  }"):
        verdict = grade_math("18", response)
        assert (verdict.score, verdict.strict, verdict.answer, verdict.reason) == (0.0, 0.0, None, "no-answer")


def test_responses_with_several_different_boxes_are_told() -> None:
    for response in (r"\boxed{17} \boxed{18}", r"\boxed{x} or \boxed{y}, so \boxed{x}"):
        assert several_boxes(response)
    for response in (
        "",
        r"\boxed{18}",
        r"\boxed{18}, \boxed{18.0}",
        r"\boxed{\boxed{18}}",
        r"\boxed{18} \boxed{}",
        r"17 \boxed{",
    ):
        assert not several_boxes(response)


def test_boxes() -> None:
    assert boxed(r"\boxed{\{1\}} \fbox{2} \boxed{\boxed{3}} \\boxed{4} \boxed {5} \boxed{6") == [
        r"\{1\}", "2", "3", r"\boxed{3}", "5",
    ]  # fmt: skip
    assert last_number("from 3 to -4.5") == "-4.5"


def test_of_boxes_in_each_other_the_outer_eight_are_listed() -> None:
    """The contents of all of them would take gigabytes for a reply of some hundred kilobytes."""
    inner = r"\boxed{" * 20 + "5" + "}" * 20
    found = boxed(rf"\boxed{{1}} {inner} \boxed{{{inner}\boxed{{2}}}}")
    assert (len(found), found[0], found[8]) == (18, "1", inner[7:-1])
    assert found[-2:] == ["2", rf"{inner}\boxed{{2}}"]
    assert found[9] == r"\boxed{" * 13 + "5" + "}" * 13


@pytest.mark.parametrize(
    "text",
    [
        "\\boxed{" * 140_000,
        "{" * 1_000_000,
        "answer is " * 100_000,
        "#### 1" + " " * 1_000_000 + "x",
        "1" * 1_000_000,
        "1," * 500_000,
        "$" * 1_000_000,
        "answer" + "*" * 1_000_000,
        "\n" * 1_000_000,
        "#### " * 200_000,
    ],
    ids=["boxes", "braces", "answers", "spaces", "digits", "commas", "dollars", "stars", "lines", "hashes"],
)
def test_reading_a_megabyte_takes_linear_time(text: str) -> None:
    start = time.process_time()
    extract(text)
    assert time.process_time() - start < 3.0


# ---- limits


@pytest.mark.parametrize(
    ("answer", "limit"),
    [
        ("x" * 5000, "length"),
        ("9" * 300, "digits"),
        ("(" * 70 + "x" + ")" * 70, "nesting"),
        ("2^{99999}", "exponent"),
        ("10^{10^{10}}", "exponent"),
        ("2^{2^{2^{2^{2}}}}", "tower"),
        ("2^2^2^2^2", "tower"),
        ("99999!", "factorial"),
        ("(10^8)!", "factorial"),
        ("3!!!!", "factorial"),
        (r"\binom{10^9}{5}", "binomial"),
    ],
)
def test_static_limits(answer: str, limit: str) -> None:
    assert over_limit(answer) == limit
    verdict = grade_math(r"\sqrt{2}", f"\\boxed{{{answer}}}")
    assert (verdict.score, verdict.strict, verdict.reason) == (0.0, 0.0, "limit")


def test_ordinary_mathematics_is_within_the_limits() -> None:
    for answer in (
        r"\frac{1}{2004!}",
        "2^{2004}",
        r"\binom{52}{5}",
        "x^{2^{n}}",
        r"\sqrt{1+\sqrt{1+\sqrt{2}}}",
        "n! \\ne 3",
    ):
        assert over_limit(answer) is None


BOMBS = [
    r"9^{9^{x-x+9}}",
    r"(x+y+z+w)^{500}",
    r"e^{e^{e^{79}}}",
    "+".join(f"x_{{{i}}}^{i % 7}" for i in range(300)),
    r"\frac{d^{50}}{dx^{50}} \tan x",
]


@pytest.mark.slow
@pytest.mark.parametrize("bomb", BOMBS, ids=range(len(BOMBS)))
def test_a_bomb_earns_nothing_and_hurts_nobody(bomb: str) -> None:
    start = time.monotonic()
    verdict = grade_math(r"\sqrt{2}", f"\\boxed{{{bomb}}}")
    assert verdict.score == verdict.strict == 0.0
    assert verdict.reason in ("limit", "wrong")
    assert time.monotonic() - start < 10 * math_pool.CPU_SECONDS
    assert grade_math(r"\sqrt{8}", r"\boxed{2\sqrt{2}}").score == 1.0


def test_nothing_of_a_response_is_evaluated(tmp_path: Path) -> None:
    mark = tmp_path / "was-here"
    code = f"open({str(mark)!r},'w')"
    for answer in (code, f"\\text{{{code}}}", f"\\sqrt{{{code}}}", f"x+{code}", f"().__class__+{code}", f"f({code})"):
        assert grade_math(r"\sqrt{2}", f"\\boxed{{{answer}}}").score == 0.0
    assert not mark.exists()


def test_the_reader_of_formulas_refuses_what_is_no_formula() -> None:
    for text in ("__import__('os')", "[1]", "1e5", "x.y", "1;2", "x:=1", "lambda x: x", r"\input{a}"):
        with pytest.raises(Unreadable):
            read_relation(text)


@pytest.mark.parametrize("answer", ["\0", "\ud800", "\\" * 3999, "$" * 4000, "\\pm" * 1000, "1," * 2000, "&" * 4000])
def test_odd_answers_are_only_wrong(answer: str) -> None:
    verdict = grade_math(r"\sqrt{2}", f"\\boxed{{{answer} 1}}")
    assert verdict.score == 0.0
