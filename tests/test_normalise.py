"""What of a text counts when texts are compared: letters, numbers and signs of arithmetic."""

import sys
import unicodedata

import pytest

from smallwit.data.normalise import _signs, numbers_in, squeezed_formula


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is 3.5 and 2?", "What is 35 and 2?"),
        ("A shirt costs 1.25 dollars.", "A shirt costs 12.5 dollars."),
        ("mix 1:2", "mix 12"),
        ("the numbers 1 2", "the numbers 12"),
        ("the point (3,5)", "the point 35"),
        ("is .5", "is 5"),
        ("5!", "5"),
        ("5% of 20", "5 of 20"),
        ("x ≤ 5", "x ≥ 5"),
        ("x != 5", "x = 5"),
        ("√9", "9"),
        ("sin 30°", "sin 30"),
        ("2*(3+4)", "2*3+4"),
        ("(2+3)*4", "2+3*4"),
        ("sqrt(2)+1", "sqrt(2+1)"),
        ("x^{2}+1", "x^{2+1}"),
        ("|x|-1", "|x-1|"),
        (r"\frac{1}{2}", r"\frac{12}{}"),
        ("f'(0)", "f(0)"),
    ],
)
def test_texts_that_ask_something_else_stay_apart(one: str, other: str) -> None:
    assert squeezed_formula(one) != squeezed_formula(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("It has 1,000 eggs.", "it has 1000 eggs"),
        (r"1{,}000 and 12\,345", "1000 and 12345"),
        ("1,234,567.5", "1234567.5"),
        ("What is 2 + 3?", "what is 2+3"),
        ("(a) Find it -- now!", "A: find it - now".replace(" -", " --")),
        ("It is 5.", "it is 5"),
        ("$12$", "12"),
    ],
)
def test_texts_that_differ_in_case_spacing_and_marks_are_one(one: str, other: str) -> None:
    assert squeezed_formula(one) == squeezed_formula(other)


def test_every_sign_of_mathematics_is_kept() -> None:
    signs = {sign for sign in map(chr, range(sys.maxunicode + 1)) if unicodedata.category(sign) == "Sm"}
    assert signs - {"|", "~"} < _signs()


def test_a_comma_between_numbers_is_no_part_of_one() -> None:
    assert numbers_in("1,000 and 3,5 and 2.50") == ["1000", "2.50", "3", "5"]
