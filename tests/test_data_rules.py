"""The rules of the filter and the scanner for personal data: what each finds, and what it leaves alone."""

import pytest

from smallwit.data.personal import findings
from smallwit.data.rules.code import syntax_reason
from smallwit.data.rules.format import unboxed_reason, unfenced_reason
from smallwit.data.rules.language import non_english_reason
from smallwit.data.rules.refusal import refusal_reason
from smallwit.data.rules.repetition import repetition_reason

ENGLISH = (
    "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May. How many in all?"
)
MATH = "Let $f(x) = ax^2 + c$ where $a \\neq 0$. Find all $x \\in \\mathbb{R}$ with $f(x) = \\dfrac{1}{2}$."
GERMAN = (
    "Natalia verkaufte im April 48 Klammern an ihre Freunde und im Mai halb so viele. Wie viele waren es insgesamt?"
)
SPANISH = "Natalia vendió clips a 48 de sus amigos en abril y luego vendió la mitad en mayo. ¿Cuántos vendió en total?"
CHINESE = "娜塔莉亚在四月份向她的四十八个朋友出售了夹子，然后在五月份卖出了一半的夹子。她一共卖出了多少个夹子？"


@pytest.mark.parametrize("text", [ENGLISH, MATH, "$2+2$", "Compute $\\sin 60^\\circ$.", "def f(x):\n    return x", ""])
def test_english_formulas_and_code_pass_the_language_rule(text: str) -> None:
    assert non_english_reason(text) is None


@pytest.mark.parametrize("text", [GERMAN, SPANISH, CHINESE])
def test_other_languages_do_not_pass_the_language_rule(text: str) -> None:
    assert non_english_reason(text) is not None


def test_prose_in_a_formula_or_a_program_does_not_decide_the_language() -> None:
    assert non_english_reason(f"{GERMAN}\n```python\n# {ENGLISH * 5}\n```") is not None


def test_a_loop_of_words_is_repetition_and_a_long_answer_is_none() -> None:
    loop = "So the answer is 5. Wait, let me check again. " * 30
    answer = " ".join(f"In step {n} we add {n * 7} to {n * n} and get {n * n + n * 7}." for n in range(40))
    assert repetition_reason(loop, share=0.5, compression=20.0) is not None
    assert repetition_reason(answer, share=0.5, compression=6.0) is None


def test_a_loop_without_spaces_is_found_by_how_far_it_compresses() -> None:
    assert "compresses" in (repetition_reason("哈" * 3000, share=0.5, compression=6.0) or "")


def test_an_answer_in_a_box_and_a_program_in_a_fence_are_in_format() -> None:
    assert unboxed_reason("So it is \\boxed{\\frac{1}{2}}.") is None
    assert unboxed_reason("So it is 5.") == "has no boxed answer"
    assert unboxed_reason("So it is \\boxed{ }.") == "its last box is empty"
    assert unfenced_reason("```python\nprint(1)\n```") is None
    assert unfenced_reason("```python\nprint(1)") is not None


@pytest.mark.parametrize("program", ["def f(:\n    pass", "return = 1", "x = '\0'", "(" * 5000])
def test_a_program_that_does_not_parse_is_named_and_breaks_nothing(program: str) -> None:
    assert (syntax_reason(f"Here:\n```python\n{program}\n```") or "").startswith("block 1 does not parse")


def test_a_fence_in_a_docstring_is_text() -> None:
    program = 'def f(x):\n    """As in\n\n    ```\n    f(1)\n    ```\n    """\n    return x'
    assert syntax_reason(f"```python\n{program}\n```") is None
    assert syntax_reason(f"```python\n{program} +\n```") is not None
    assert unfenced_reason(f"```python\n{program}\n```") is None


def test_blocks_of_other_languages_and_good_programs_parse() -> None:
    assert syntax_reason("```python\nassert 1 is 1\n```\n```bash\ncd ..\n```") is None


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help with that.",
        "As an AI language model, I have no opinion.",
        "I cannot assist with this request.",
        "I am unable to answer this question.",
    ],
)
def test_refusals_are_found(text: str) -> None:
    assert refusal_reason(text) is not None


@pytest.mark.parametrize(
    "text",
    [
        "We cannot divide by zero, so x is 3.",
        "I am sorry that the bus was late, said Tom. He can provide 3 rides.",
        "She can't help her friend, so 5 remain. " + "x" * 300 + " I cannot help with that.",
    ],
)
def test_solutions_that_speak_of_what_cannot_be_are_no_refusals(text: str) -> None:
    assert refusal_reason(text) is None


PERSONAL = [
    ("an e-mail address", "Write to jane.doe+test@mail.example.co.uk today."),
    ("an e-mail address", "mailto:a_b@example.org"),
    ("a phone number", "Call (415) 555-0132 now"),
    ("a phone number", "tel. 415-555-0132."),
    ("a phone number", "+49 30 1234 5678"),
    ("a phone number", "phone: +442071838750"),
    ("a postal address", "She lives at 1600 Amphitheatre Parkway Drive, Mountain View, CA 94043."),
    ("a postal address", "221 Baker Street, Springfield, IL"),
    ("a postal address", "Hauptstraße 12, 10115 Berlin"),
    ("a social security number", "SSN 123-45-6789"),
    ("a payment card's number", "4111 1111 1111 1111"),
    ("an account number", "IBAN DE89 3704 0044 0532 0130 00"),
    ("an internet address", "from 93.184.216.34 at noon"),
    ("a key or token", "AKIAIOSFODNN7EXAMPLE"),
    ("a key or token", "ghp_" + "a1B2" * 9),
    ("a key or token", "sk-proj-" + "Ab3_" * 8),
    ("a key or token", "hf_" + "Abc3" * 8),
    ("a key or token", "-----BEGIN RSA PRIVATE KEY-----"),
    ("a key or token", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N"),
    ("a secret", 'password = "hunter2hunter2"'),
    ("a secret", "API_KEY=9f8e7d6c5b4a39281706"),
]

HARMLESS = [
    "What is 123-45-67? And 555 - 123 - 4567?",
    "Compute $100-200-3000$ and 10.5.2.1.",
    "The ratio is 4111 1111 1111 1112 to 1.",
    "f(x) = x + 12345 and y = 3 + 1234567890",
    "He ran 5 miles down Elm Street and 3 more to the park.",
    "password = get_password(user)",
    "token = tokens[position + 1]",
    "x@y is the matrix product A@B in NumPy",
    "Version 2.13.0.1, address 192.168.0.1, mask 255.255.255.0",
    "AB12 CDEF GHIJ KLMN OPQR is a code",
    "\\(\\frac{415}{555}-\\frac{132}{1}\\)",
    "sk-learn is a library; hf_hub too",
    "the year 2024-11-23 at 12:30:15",
]


@pytest.mark.parametrize(("kind", "text"), PERSONAL)
def test_personal_data_is_found_and_named(kind: str, text: str) -> None:
    assert [finding.kind for finding in findings(text)] == [kind]


@pytest.mark.parametrize("text", HARMLESS)
def test_mathematics_and_code_hold_no_personal_data(text: str) -> None:
    assert not list(findings(text))


def test_a_finding_shows_only_the_ends_of_what_it_found() -> None:
    (finding,) = findings("key: AKIAIOSFODNN7EXAMPLE")
    assert finding.text == "AKIA...MPLE"
