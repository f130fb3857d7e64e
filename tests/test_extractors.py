"""The replicas of other harnesses' extraction: each rule by an example of what it finds, and of what it does not."""

import pytest

from smallwit.evaluation.protocols.lm_eval_gsm8k import exact_match, flexible_extract, strict_match
from smallwit.evaluation.protocols.minerva_math import minerva_answer
from smallwit.evaluation.protocols.qwen_boxed import qwen_answer


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("so 3 + 4 = 7\n#### 7", "7"),
        ("#### 1,234.50 dollars", "1,234.50"),
        ("#### -3", "-3"),
        ("#### 7\n#### 8", "7"),  # the first
        ("##### 7", "7"),  # the mark may be the end of a longer one
        ("####7", None),
        ("####  7", None),
        ("#### $7", None),
        ("#### −7", None),
        ("The answer is 7", None),
        ("#### 7.", "7."),
    ],
)
def test_lm_eval_strict_wants_the_mark_a_space_and_a_number(response: str, answer: str | None) -> None:
    assert strict_match(response) == answer


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("3 apples and 12 pears", "12"),  # the last
        ("It is $1,234.", "$1,234."),
        ("7 and so on...", "..."),  # two characters of a number's are one
        ("7, 8", "8"),
        ("x-5", "-5"),
        ("none", None),
        ("", None),
    ],
)
def test_lm_eval_flexible_takes_the_last_thing_like_a_number(response: str, answer: str | None) -> None:
    assert flexible_extract(response) == answer


@pytest.mark.parametrize(
    ("answer", "gold", "equal"),
    [
        ("1,234", "1234", True),
        ("$18", "18", True),
        ("18.", "18", True),
        ("18..", "18", False),
        ("18.0", "18", False),
        ("18", "3 * 6 = 18\n#### 18", True),  # the gold may be the whole solution
        ("018", "18", False),
        (None, "18", False),
    ],
)
def test_lm_eval_compares_texts_without_commas_dollars_and_one_stop(answer: str | None, gold: str, equal: bool) -> None:
    assert exact_match(answer, gold) is equal


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("Final Answer: The final answer is $[2,5)$. I hope it is correct.", "$[2,5)$"),
        ("Final Answer: The final answer is 7. I hope it is correct. Final Answer: The final answer is 8.", "7"),
        ("Final Answer: The final answer is 24. ", "24"),  # cut off before the phrase
        ("Final Answer: The final answer is\n7. I hope it is correct.", None),  # on one line
        (r"\boxed{7}", None),
    ],
)
def test_minerva_reads_its_own_sentence_only(response: str, answer: str | None) -> None:
    assert minerva_answer(response) == answer


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        (r"The final answer is $7$. I hope it is correct. \boxed{8}", "7"),
        (r"\boxed{1} and then \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        (r"\boxed{\frac{1}{2}", r"\frac{1}{2}"),  # never closed: to the end
        (r"$\boxed 7$ it is", "7"),
        ("The answer is: 12.", "12"),
        ("So the final answer is 3/", "3"),
        ("答案是 5\n\n6", "5"),
        ("first 1,234 and then 2,345 apples", "2345"),
        ("The answer is 1\n  2", "12"),
        ("no number", None),
        ("", None),
        ("boxed", None),
    ],
)
def test_qwen_tries_phrase_box_sentence_and_number_in_this_order(response: str, answer: str | None) -> None:
    assert qwen_answer(response) == answer
