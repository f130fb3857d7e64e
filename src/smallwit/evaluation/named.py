"""How a task is asked and read: what a protocol with a name is, and the house protocol."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from smallwit.errors import UserError
from smallwit.inference.generator import Decoding, Message, Overflow, Prompt
from smallwit.tasks.base import Problem, Task

Composer = Callable[[Problem], Prompt]


@dataclass(frozen=True)
class NamedProtocol:
    """How a task is asked and read, but for what a run may choose (samples, temperature, token limit).

    `composer(task)` reads what its demonstrations need and returns what makes a prompt of a problem. `extractor` and
    `grader` are names that `evaluation.graders` knows; `tasks` are the tasks that it is for, `None` for all.
    """

    name: str
    about: str
    composer: Callable[[Task], Composer]
    decoding: Decoding
    tasks: tuple[str, ...] | None = None
    shots: int = 0
    system: str | None = None
    overflow: Overflow = "refuse"
    extractor: str = "task"
    grader: str = "task"

    def prompts(self, task: Task, problems: Sequence[Problem]) -> list[Prompt]:
        """What is asked for each problem. Raises `UserError` for a task that the protocol is not for."""
        self.require(task)
        compose = self.composer(task)
        return [compose(problem) for problem in problems]

    def require(self, task: Task) -> None:
        """Raises `UserError` for a task that the protocol is not for."""
        if self.tasks is not None and task.name not in self.tasks:
            raise UserError(f"protocol {self.name} is for {', '.join(self.tasks)}; task {task.name} needs another")


def user_message(text: str) -> tuple[Message, ...]:
    """A conversation of one message."""
    return ({"role": "user", "content": text},)


def _house(task: Task) -> Composer:
    return lambda problem: problem.as_prompt()


HOUSE = NamedProtocol(
    "house",
    "the task's own message as one turn of a chat, no demonstrations; answers in the task's declared format",
    _house,
    Decoding(0.0, 2048),
)
