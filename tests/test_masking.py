"""Questions asked backwards, made without a model."""

import pytest

from scripted_teacher import solve_any
from smallwit.data.masking import backward, numbers, self_verification, split_instruction
from smallwit.tasks.wordmath import WordMath

TOM = "Tom has 12 apples. He buys 3 more. How many apples does Tom have now?"


def test_backward_hides_a_number_and_tells_the_answer() -> None:
    masked = backward(TOM, "15", 1)
    assert masked is not None
    assert masked.hidden == "3"
    assert masked.question == (
        "Tom has 12 apples. He buys X more. How many apples does Tom have now? "
        "If the answer to this question is 15, what is the value of X?"
    )


def test_self_verification_states_what_was_asked() -> None:
    masked = self_verification(TOM, "15", 0)
    assert masked is not None
    assert masked.hidden == "12"
    assert masked.question == (
        'Tom has X apples. He buys 3 more. The answer to "How many apples does Tom have now?" is 15. '
        "What is the value of X?"
    )


def test_which_number_is_hidden_goes_around() -> None:
    assert [m.hidden for m in (backward(TOM, "15", which) for which in range(4)) if m] == ["12", "3", "12", "3"]


@pytest.mark.slow
@pytest.mark.parametrize("make", [backward, self_verification])
def test_the_hidden_number_answers_the_question_that_is_made(make: object) -> None:
    for number, problem in enumerate(WordMath(steps=3, largest=20).problems("train")[:200]):
        masked = make(problem.prompt, problem.gold, number)  # type: ignore[operator]
        assert solve_any(masked.question) == masked.hidden


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("It costs 1,200 dollars and 3.50 more.", ["1,200", "3.50"]),
        ("Half of 3/4 is what?", []),
        ("What is 2^10 mod 7?", ["7"]),
        ("Room B12 has 4 chairs.", ["4"]),
        ("Find X if 3 and 4 are given.", []),
        (r"Compute \frac{3}{4} of 20.", ["20"]),
        ("He pays 5.", ["5"]),
    ],
)
def test_only_plain_numbers_are_hidden(text: str, found: list[str]) -> None:
    assert [match[0] for match in numbers(text)] == found


def test_thousands_are_hidden_whole_and_told_without_their_comma() -> None:
    masked = backward("He earns 1,200 dollars. How much is that?", "1200", 0)
    assert masked is not None
    assert masked.hidden == "1200"


@pytest.mark.parametrize("text", ["Compute 4 + 5.", "Why? Tom has 3. How many?", "How many is 3 and 4?"])
def test_what_is_not_facts_and_one_question_cannot_be_stated(text: str) -> None:
    assert self_verification(text, "9", 0) is None


def test_an_instruction_stays_behind_the_question() -> None:
    question, tail = split_instruction("How many?\nThink, and box it.", "Think, and box it.")
    assert (question, tail) == ("How many?", "\nThink, and box it.")
    assert split_instruction("How many?", "Think, and box it.") == ("How many?", "")
