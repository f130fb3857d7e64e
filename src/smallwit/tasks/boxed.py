"""The base class of tasks with a boxed answer: the instruction, the grader and the form of a gold response."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from smallwit.tasks.base import Problem
from smallwit.tasks.dataset import DatasetTask
from smallwit.verify import Verdict
from smallwit.verify.math import grade_math, grade_math_batch

INSTRUCTION = "Please reason step by step, and put your final answer within \\boxed{}."
"""The instruction of the default protocol, a part of the user's message. It is Qwen's."""
_QUESTION = "{question}"


class BoxedTask(DatasetTask):
    """A dataset whose gold answers are mathematics, graded by `smallwit.verify.math`. `Problem.gold` is a string.

    The option `prompt` replaces the user's message: a text with one place `{question}`. The splits stay the same.
    Raises `ValueError` for another text.
    """

    answer_kind: ClassVar = "math"

    def __init__(
        self, data_dir: Path | None = None, revision: str | None = None, prompt: str = f"{_QUESTION}\n{INSTRUCTION}"
    ) -> None:
        super().__init__(data_dir, revision)
        if not isinstance(prompt, str) or prompt.count(_QUESTION) != 1:
            raise ValueError(f"its prompt is {prompt!r}; give a text with the place {_QUESTION} once")
        self._around = prompt.split(_QUESTION)

    def asked(self, problem: Problem) -> Problem:
        """Return a problem whose message `ask` has made with the message of the option `prompt`."""
        return replace(problem, prompt=problem.prompt.removesuffix(f"\n{INSTRUCTION}").join(self._around))

    def question(self, problem: Problem) -> str:
        """Return the question of a problem without what the prompt adds to it."""
        before, after = self._around
        return problem.prompt.removeprefix(before).removesuffix(after)

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
