"""The base class of evaluation protocols: how a task is prompted, how replies are decoded, read and graded."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import ClassVar

from smallwit.errors import UserError
from smallwit.inference.generator import Decoding, Overflow
from smallwit.tasks import task_classes
from smallwit.tasks.base import Problem, Task
from smallwit.tasks.prompt import Message, Prompt
from smallwit.verify import Verdict
from smallwit.verify.math import grade_math_batch

Composer = Callable[[Problem], Prompt]
Pairs = Sequence[tuple[Problem, str]]
"""Problems and the responses to them."""
Grader = Callable[[Task, Pairs], list[Verdict]]
"""A function that grades responses, in order: `Verdict.score` is the lenient score, `Verdict.strict` the strict one."""


class NamedProtocol:
    """An evaluation protocol, except for what a run may choose (samples, temperature, token limit).

    Subclasses set `name`, `about` and `decoding`, and define `composer`, `grade` and, if they are not for all tasks,
    `supports`. `extractor` and `grader` are names of the two parts of `grade`: they are part of the signature.
    """

    name: ClassVar[str]
    about: ClassVar[str]
    decoding: ClassVar[Decoding]
    shots: ClassVar[int] = 0
    system: ClassVar[str | None] = None
    overflow: ClassVar[Overflow] = "refuse"
    extractor: ClassVar[str] = "task"
    grader: ClassVar[str] = "task"

    def composer(self, task: Task) -> Composer:
        """Return the function that makes a prompt of a problem. Reads the demonstrations that it needs."""
        raise NotImplementedError(f"{type(self).__name__} defines no composer()")

    def grade(self, task: Task, pairs: Pairs) -> list[Verdict]:
        """Return the verdicts on responses, in order. It may be called several times, with parts of the work."""
        raise NotImplementedError(f"{type(self).__name__} defines no grade()")

    def supports(self, task: type[Task]) -> bool:
        """Return whether tasks of this class can be measured by the protocol."""
        return True

    def prompts(self, task: Task, problems: Sequence[Problem]) -> list[Prompt]:
        """Return the prompt of each problem. Raises `UserError` for a task that the protocol does not support."""
        self.require(task)
        compose = self.composer(task)
        return [compose(problem) for problem in problems]

    def require(self, task: Task) -> None:
        """Raise `UserError` for a task that the protocol does not support."""
        if not self.supports(type(task)):
            supported = ", ".join(name for name, each in task_classes().items() if self.supports(each))
            raise UserError(f"protocol {self.name} is for {supported}; task {task.name} needs another")


def user_message(text: str) -> tuple[Message, ...]:
    """Return a conversation of one user message."""
    return ({"role": "user", "content": text},)


def text_key(text: str) -> str:
    """Return a short hash of a text without its white space."""
    return hashlib.sha256("".join(text.split()).encode()).hexdigest()[:12]


def grade_extracted(pairs: Pairs, extract: Callable[[str], str | None]) -> list[Verdict]:
    """Return our math grader's verdicts on the answers that `extract` finds. Strict and lenient scores are equal."""
    answers = [extract(response) for _, response in pairs]
    boxes = [(problem.gold, f"\\boxed{{{answer}}}") for (problem, _), answer in zip(pairs, answers, strict=True)]
    verdicts = grade_math_batch(boxes)
    nothing = Verdict(0.0, 0.0, None, "no-answer")
    return [
        nothing if answer is None else replace(verdict, score=verdict.strict, answer=answer)
        for answer, verdict in zip(answers, verdicts, strict=True)
    ]
