"""Minerva's four-shot prompt for MATH (Lewkowycz et al. 2022, arXiv 2206.14858).

Prompt and decoding are those of lm-evaluation-harness 0.4.13, task minerva_math (version 3.1). A problem is never
shown its own solution: where it is among the demonstrations, as on the training split, it is left out.
"""

import re
from typing import ClassVar, cast

from smallwit.errors import UserError
from smallwit.evaluation.protocols.base import Composer, NamedProtocol, Pairs, grade_extracted, text_key
from smallwit.inference.generator import Decoding
from smallwit.rows import Row
from smallwit.tasks.base import Problem, Task
from smallwit.tasks.benchmarks.math import MATH
from smallwit.tasks.prompt import Prompt
from smallwit.verify import Verdict
from smallwit.verify.extract import boxed

DEMONSTRATIONS = ("ec12d949822d", "9dbd8fb88aad", "cb0a71d6bb41", "20c3e8cce64a")
"""`text_key` of the four demonstrations (appendix D.2 of the paper), which are training problems of MATH."""
_ANSWER = re.compile(r"Final Answer: The final answer is(.*?). I hope it is correct.")
_END = "I hope it is correct."


class MinervaMath(NamedProtocol):
    """The answer of Minerva's closing sentence, compared by our math grader."""

    name = "minerva-math"
    about = "lm-evaluation-harness' minerva_math: Minerva's 4 demonstrations in plain text"
    decoding: ClassVar = Decoding(0.0, 256, stop=("Problem:",))
    shots = len(DEMONSTRATIONS)
    overflow: ClassVar = "cut"
    extractor = "minerva"
    grader = "math"

    def supports(self, task: type[Task]) -> bool:
        """Return whether the task is MATH or MATH-500."""
        return issubclass(task, MATH)

    def composer(self, task: Task) -> Composer:
        """Return the function that puts the demonstrations before a problem. Raises `UserError` if one is missing."""
        source = cast(MATH, task)
        by_text = {text_key(row["problem"]): row for row in source.published("train")}
        if any(key not in by_text for key in DEMONSTRATIONS):
            raise UserError(
                f"task {task.name}: its training rows lack the problems of Minerva's demonstrations; get all"
            )
        shots = {key: f"{_ask(by_text[key])} {_solution(by_text[key])}\n\n" for key in DEMONSTRATIONS}

        def compose(problem: Problem) -> Prompt:
            own = source.row(problem)
            key = text_key(own["problem"])
            return Prompt(text="".join(shot for other, shot in shots.items() if other != key) + _ask(own))

        return compose

    def grade(self, task: Task, pairs: Pairs) -> list[Verdict]:
        """Return the verdicts on the answers of Minerva's closing sentence."""
        return grade_extracted(pairs, minerva_answer)


def _ask(row: Row) -> str:
    return f"Problem:\n{row['problem']}\n\nSolution:"


def _solution(row: Row) -> str:
    solution = row["solution"].strip()
    return f"{solution}\nFinal Answer: The final answer is ${boxed(solution)[-1]}$. I hope it is correct."


def minerva_answer(response: str) -> str | None:
    """Return the answer of Minerva's closing sentence, or `None`.

    It stands between the first "Final Answer: The final answer is" and "I hope it is correct.", on one line, without
    the character before the latter (the full stop). A response that ends before that phrase is read as if it came.
    """
    match = _ANSWER.search(response + _END)
    return match[1].strip() if match else None
