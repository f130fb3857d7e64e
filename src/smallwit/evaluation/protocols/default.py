"""The default protocol: the task's own message, and the task's own verifier."""

from typing import ClassVar

from smallwit.evaluation.protocols.base import Composer, NamedProtocol, Pairs
from smallwit.inference.generator import Decoding
from smallwit.tasks.base import Problem, Task
from smallwit.verify import Verdict


class DefaultProtocol(NamedProtocol):
    """The protocol of a recipe's evaluations. Its verifier also rewards training and filters data."""

    name = "default"
    about = "the task's own message as one turn of a chat, no demonstrations; answers in the task's declared format"
    decoding: ClassVar = Decoding(0.0, 2048)

    def composer(self, task: Task) -> Composer:
        """Return `Problem.as_prompt`."""
        return Problem.as_prompt

    def grade(self, task: Task, pairs: Pairs) -> list[Verdict]:
        """Return the task's own verdicts."""
        return task.verify_batch(pairs)


DEFAULT = DefaultProtocol()
