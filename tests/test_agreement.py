"""Reading what a teacher wrote, and whether independent samples agree."""

from dataclasses import replace

import pytest

from smallwit.data.agreement import agree_by_running, agree_on_gold, agree_on_majority
from smallwit.data.reply_parsing import UnusableReply, parse_question, parse_signature, parse_solution, parse_test_cases
from smallwit.tasks.base import Problem
from smallwit.tasks.wordmath import WordMath

TASK = WordMath()
PROBLEM = Problem("p", "How many?", "8")
ADD = 'def add(a, b=1):\n    """Return the sum of a and b."""'


class TestReading:
    def test_a_question_stands_between_its_marks(self) -> None:
        assert parse_question("Sure.\n<question>\nHow many eggs?\n</question>", False, "x") == "How many eggs?"

    def test_a_label_is_no_part_of_a_question(self) -> None:
        assert parse_question("<question>**New question:** How many?</question>", False, "x") == "How many?"

    @pytest.mark.parametrize(
        ("reply", "reason"),
        [
            ("How many eggs?", "not one question"),
            ("<question>A?</question><question>B?</question>", "not one question"),
            ("<question> </question>", "an empty question"),
            (r"<question>How many? \boxed{3}</question>", "holds its answer"),
            ("<question>How many?\n#### 3</question>", "holds its answer"),
            ("<question>what  is IT?</question>", "the same question"),
        ],
    )
    def test_anything_else_is_refused_with_the_reason(self, reply: str, reason: str) -> None:
        with pytest.raises(UnusableReply, match=reason):
            parse_question(reply, False, "What is it?")

    def test_a_reply_that_was_cut_is_refused(self) -> None:
        with pytest.raises(UnusableReply, match="cut"):
            parse_question("<question>A?</question>", True, "x")
        with pytest.raises(UnusableReply, match="cut"):
            parse_solution("4 + 4 = 8", True)

    def test_a_signature_says_how_many_arguments_there_are(self) -> None:
        assert parse_signature(ADD)[:3] == ("add", 1, 2)
        assert parse_signature(f"Complete it.\n```python\nimport math\n\n{ADD}\n```")[:3] == ("add", 1, 2)
        shown = 'def add(a, b=1):\n    """As in\n\n    ```\n    add(1)\n    ```\n    """'
        assert parse_signature(f"Complete it.\n```python\n{shown}\n```").code == shown

    @pytest.mark.parametrize(
        "prompt", ["Add two numbers.", "def add(a, b:", "def add(*, a):", "def f(x):\n  return 1\nx = 2"]
    )
    def test_a_prompt_without_a_plain_signature_is_refused(self, prompt: str) -> None:
        with pytest.raises(UnusableReply):
            parse_signature(prompt)

    def test_tests_are_asserts_on_plain_values_each_once(self) -> None:
        reply = "Here:\n```python\nassert add(1, 2) == 3\nassert add(1, 2) == 3\nassert add([1]) is None\n```"
        assert parse_test_cases(reply, parse_signature(ADD)) == [((1, 2), 3), (([1],), None)]

    @pytest.mark.parametrize(
        "line",
        [
            "assert add(1, 2, 3) == 6",
            "assert add() == 0",
            "assert add(a=1) == 2",
            "assert sub(1, 2) == 3",
            "assert add(1, x) == 3",
            "assert add(1, 2) == add(2, 1)",
            "assert add(1, 2) == (3,)",
            "assert add(1, 2) > 2",
            "assert add(1, 2) == __import__('os').getpid()",
            "import os; assert add(1, 2) == 3",
            "add(1, 2) == 3",
        ],
    )
    def test_lines_of_another_form_are_no_tests(self, line: str) -> None:
        with pytest.raises(UnusableReply, match="no line"):
            parse_test_cases(line, parse_signature(ADD))


class TestAgreement:
    def test_the_share_is_of_those_that_give_the_known_answer(self) -> None:
        agreed = agree_on_gold(TASK, PROBLEM, ["#### 8", "#### 7", "#### 8.0", "8 or so"])
        assert (agreed.indices, agreed.share) == ([0, 2], 0.5)

    def test_the_majority_is_told_by_the_verifier_not_by_spelling(self) -> None:
        agreed = agree_on_majority(TASK, PROBLEM, ["#### 7", "#### 8", "#### 8.0", "#### $8"])
        assert (agreed.gold, agreed.indices, agreed.share) == ("8", [1, 2, 3], 0.75)

    def test_the_majority_does_not_look_at_the_gold_answer(self) -> None:
        responses = ["#### 5", "#### 5", "#### 8"]
        found = [agree_on_majority(TASK, replace(PROBLEM, gold=gold), responses) for gold in ("8", "5", None)]
        assert [agreed.gold for agreed in found] == ["5"] * 3

    def test_samples_without_an_answer_agree_on_nothing(self) -> None:
        assert agree_on_majority(TASK, PROBLEM, ["well", "hm"]).indices == []

    def test_programs_agree_by_what_they_return(self) -> None:
        programs = [
            "def add(a, b=1):\n    return a + b",
            "def add(a, b=1):\n    return sum([a, b])",
            "def add(a, b=1):\n    return a - b",
            "def add(a, b=1):\n    raise ValueError",
        ]
        cases = [((1, 2), 3), ((2, 2), 4), ((5,), 6), ((5, 1), 99)]
        agreed = agree_by_running(ADD, "add", programs, cases)
        assert agreed.indices == [0, 1]
        assert agreed.gold == cases[:3]
        assert agreed.share == 0.5

    def test_programs_that_pass_no_test_agree_on_nothing(self) -> None:
        agreed = agree_by_running(ADD, "add", ["def add(a, b=1):\n    return 0"], [((1, 2), 3)])
        assert (agreed.gold, agreed.indices) == ([], [])
