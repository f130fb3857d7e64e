"""What tasks with a boxed answer share: the instruction, the grader and the form of a gold response."""

from collections.abc import Sequence
from typing import ClassVar

from smallwit.tasks.base import Problem
from smallwit.tasks.dataset import DatasetTask
from smallwit.verify import Verdict
from smallwit.verify.math import grade_math, grade_math_batch

INSTRUCTION = "Please reason step by step, and put your final answer within \\boxed{}."
"""The instruction of the default protocol, a part of the user's message. It is Qwen's."""


class BoxedTask(DatasetTask):
    """A dataset whose gold answers are mathematics, graded by `smallwit.verify.math`. `Problem.gold` is a string."""

    answer_kind: ClassVar = "math"

    def verify(self, problem: Problem, response: str) -> Verdict:
        """Return the verdict of the math grader."""
        return grade_math(problem.gold, response)

    def verify_batch(self, pairs: Sequence[tuple[Problem, str]]) -> list[Verdict]:
        """Return the verdicts on many responses, in order."""
        return grade_math_batch([(problem.gold, response) for problem, response in pairs])

    def gold_response(self, problem: Problem) -> str:
        """Return the gold answer in a box."""
        return f"\\boxed{{{problem.gold}}}"


def ask(question: str) -> str:
    """Return the user's message for a question."""
    return f"{question.strip()}\n{INSTRUCTION}"


def question_of(problem: Problem) -> str:
    """Return the question of a problem whose message `ask` has made."""
    return problem.prompt.removesuffix(f"\n{INSTRUCTION}")
