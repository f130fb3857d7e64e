"""What a completion earns: each part alone, their weighted sum, and the user's own function."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import TypeAdapter

from recipe_samples import refusal
from smallwit.inference.engine import Completion
from smallwit.recipe.section import ByKind
from smallwit.tasks import Problem, Task
from smallwit.tasks.reward_function import reward_bytes, reward_function
from smallwit.training.grader import Grader
from smallwit.training.reward_part import RewardPart
from smallwit.training.rewards.overlong import overlong_penalty
from smallwit.verify import Verdict
from smallwit.verify.math import grade_math

LONGEST = 20
PROBLEM = Problem("p", "How many?", "4")
LIMIT = Verdict(0.0, 0.0, "1", "limit")
BROKEN = Verdict(None, None, None, "infrastructure")


@dataclass
class Quoted(Task):
    """The math grader, but for two responses that spoil it."""

    name: str = "quoted"

    def verify(self, problem: Problem, response: str) -> Verdict:
        return {"limit": LIMIT, "broken": BROKEN}.get(response) or grade_math(problem.gold, response)


def rewards(parts: Sequence[dict[str, Any]], responses: Sequence[str], base: Path | None = None) -> list[float]:
    grader = Grader(
        [TypeAdapter(Annotated[RewardPart, ByKind()]).validate_python(part) for part in parts], LONGEST, base
    )
    completions = [Completion([0] * len(text), [0.0] * len(text), "stop") for text in responses]
    return grader.grade([(Quoted(), PROBLEM)], responses, completions).total.flatten().tolist()


RESPONSES = ["#### 4", "#### 5", "It is 4", "It is 5", "no idea", "limit"]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("strict", [1, 0, 0, 0, 0, 0]),
        ("score", [1, 0, 1, 0, 0, 0]),
        ("format", [1, 1, 0, 0, 0, 0]),
        ("length", [len(response) for response in RESPONSES]),
    ],
)
def test_parts_alone(kind: str, expected: list[float]) -> None:
    assert rewards([{"kind": kind}], RESPONSES) == expected


@pytest.mark.parametrize("kind", ["strict", "score", "format"])
def test_a_verdict_that_is_not_known_is_no_reward(kind: str) -> None:
    first, second = rewards([{"kind": "overlong", "cache": 5}, {"kind": kind}], ["broken", "#### 4"])
    assert math.isnan(first)
    assert second == 1.0


@pytest.mark.parametrize(("tokens", "expected"), [(0, 0), (15, 0), (16, -0.2), (18, -0.6), (20, -1), (25, -1)])
def test_overlong_responses_are_punished_more_the_nearer_the_limit(tokens: int, expected: float) -> None:
    assert overlong_penalty(tokens, max_new_tokens=20, cache=5) == pytest.approx(expected)


def test_parts_are_summed_by_their_weights() -> None:
    parts = [{"kind": "strict", "weight": 2.0}, {"kind": "format", "weight": 0.5}, {"kind": "overlong", "cache": 15}]
    assert rewards(parts, ["#### 4", "#### 5", "It is certainly 5, yes"]) == pytest.approx(
        [2.5 - 1 / 15, 0.5 - 1 / 15, -1.0]
    )


def test_equal_sums_are_exactly_equal() -> None:
    parts = [{"kind": "strict", "weight": 0.1}, {"kind": "format", "weight": 0.2}]
    first, second = rewards(parts, ["#### 4", "So #### 4\n#### 4"])
    assert first == second


def test_a_response_over_a_limit_earns_nothing_from_the_user_s_function_either(tmp_path: Path) -> None:
    (tmp_path / "pay.py").write_text("def always(problem, response, verdict):\n    return 1\n")
    paid = rewards([{"kind": "function", "function": "pay.py:always"}], ["limit", "no idea"], tmp_path)
    assert paid == [0.0, 1.0]


def test_the_user_s_function_sees_problem_response_and_verdict(tmp_path: Path) -> None:
    (tmp_path / "pay.py").write_text(
        "def pay(problem, response, verdict):\n    return len(problem.id) + len(response) + 10 * verdict.strict\n"
    )
    assert rewards([{"kind": "function", "function": "pay.py:pay"}], ["#### 4", "?"], tmp_path) == [17.0, 2.0]


@pytest.mark.parametrize(
    ("source", "reference", "message"),
    [
        ("def pay(a, b, c): pass", "pay.py", "reward function 'pay.py': no function is named; write pay.py:function"),
        ("def pay(a, b, c): pass", "other.py:pay", "other.py is not a file"),
        ("def pay(a, b, c): pass", "pay.py:paj", "pay.py: no function paj; did you mean 'pay'?"),
        ("class pay: pass", "pay.py:pay", "pay.py: no function pay"),
        ("def pay(a, b): pass", "pay.py:pay", "pay must take (problem, response, verdict)"),
        ("def pay(a, b, c:", "pay.py:pay", "pay.py:1: SyntaxError"),
    ],
)
def test_functions_that_are_not_there_or_take_other_things_are_refused(
    tmp_path: Path, source: str, reference: str, message: str
) -> None:
    (tmp_path / "pay.py").write_text(source)
    assert message in refusal(lambda: reward_function(reference, tmp_path))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return None", "pay gave None for problem p; give a finite number"),
        ("return float('nan')", "pay gave nan for problem p; give a finite number"),
        ("return problem.size", "pay.py:2: pay on problem p: AttributeError"),
    ],
)
def test_what_goes_wrong_in_a_function_is_named_with_its_file(tmp_path: Path, body: str, message: str) -> None:
    (tmp_path / "pay.py").write_text(f"def pay(problem, response, verdict):\n    {body}\n")
    function = reward_function("pay.py:pay", tmp_path)
    assert message in refusal(lambda: function(PROBLEM, "", LIMIT))


def test_the_bytes_of_the_user_s_file_are_what_a_key_is_made_of(tmp_path: Path) -> None:
    (tmp_path / "pay.py").write_text("def pay(a, b, c): return 1.0")
    assert reward_bytes("pay.py:pay", tmp_path) == b"def pay(a, b, c): return 1.0"


def test_a_verdict_that_says_nothing_of_the_format_had_it_when_it_had_an_answer() -> None:
    assert Verdict(0.0, 0.0, "5", "wrong").formatted
    assert not Verdict(0.0, 0.0, None, "no-answer").formatted
    assert not Verdict(0.0, 0.0, "5", "wrong", declared=False).formatted


def test_the_math_grader_says_whether_a_wrong_answer_stood_in_the_declared_format() -> None:
    assert grade_math("4", "\\boxed{5}").declared is True
    assert grade_math("4", "it is 5").declared is False
