"""A task: problems, and a verdict for a response to one of them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from smallwit.tasks.prompt import Message, Prompt
from smallwit.thoughts import answer_part
from smallwit.verify import Verdict

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem of a task.

    `prompt` is the user's message, the instruction on the answer's format included. `gold` is whatever the task's
    `verify` compares with (JSON data). `solution` is a worked answer in the declared format, or `None` if the task
    has only the gold answer.

    A conversation has its turns in `messages`, the last assistant turn included if there is one, and the JSON schemas
    of its `tools`. Then `prompt` is the text of the turns before that, one after the other, and `solution` its content.

    `strata` are the groups that the problem is in, as `(("subject", "Algebra"), ("level", "5"))`: scores are given for
    each.
    """

    id: str
    prompt: str
    gold: Any
    solution: str | None = None
    messages: tuple[Message, ...] = ()
    tools: tuple[Mapping[str, Any], ...] = ()
    strata: tuple[tuple[str, str], ...] = ()

    @property
    def asked(self) -> tuple[Message, ...]:
        """Return the turns that a model answers."""
        if not self.messages:
            return ({"role": "user", "content": self.prompt},)
        return self.messages[:-1] if self.messages[-1]["role"] == "assistant" else self.messages

    def as_prompt(self) -> Prompt:
        """Return the problem as a model is asked it."""
        return Prompt(self.asked, tools=self.tools)


class Task:
    """Base class of tasks. Subclasses set `name` and define `problems` and `verify`.

    A subclass with a `name` in a module below `smallwit.tasks` is a built-in task: defining it registers it.
    `answer_kind` says what an answer is: mathematics, a program, or anything else (`None`). A task whose `verify` runs
    programs gives their least isolation in `isolation`: one of the levels of `smallwit.verify.consent`. A class with a
    `collection` stands for a library of problem families, named `COLLECTION:FAMILY`; it takes the option `family`.

    The problems of an `exchangeable` task are independent random draws, so that the first n of them are a fair part. Of
    other tasks a part is drawn by the hash of the ids (`tasks.draw`), for which all problems of the split are read.
    """

    name: str
    origin: str = ""
    license: str = ""
    isolation: str | None = None
    answer_kind: ClassVar[Literal["math", "code"] | None] = None
    collection: ClassVar[str | None] = None
    exchangeable: bool = False

    def problems(self, split: str) -> Iterable[Problem]:
        """Return the problems of `split` (one of `SPLITS`), always in the same order.

        A sequence (with `len` and indexing) is best: training then reads only the rows it needs. Raises `UserError`
        when the task has no such split or its data cannot be found.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no problems()")

    def judge(self, pairs: Sequence[tuple[Problem, str]]) -> list[Verdict]:
        """Return the verdicts on a model's whole texts, in order: the answers behind their thoughts are verified.

        A thought that is never closed leaves no answer. Everything that judges a model's text does it by this.
        """
        return self.verify_batch([(problem, answer_part(response)) for problem, response in pairs])

    def verify(self, problem: Problem, response: str) -> Verdict:
        """Return the verdict on one response (a model's text after its thought, if it has one)."""
        raise NotImplementedError(f"{type(self).__name__} defines no verify()")

    def verify_batch(self, pairs: Sequence[tuple[Problem, str]]) -> list[Verdict]:
        """Return the verdicts on many responses, in order. Tasks that judge in parallel override this."""
        return [self.verify(problem, response) for problem, response in pairs]

    @property
    def judges_beside(self) -> bool:
        """Return whether a thread may judge while the model writes on: where the task judges many in parallel.

        Judging one by one takes turns with the model anyway, and may need the main thread, as signals do.
        """
        return type(self).verify_batch is not Task.verify_batch

    def gold_trouble(self, gold: Any) -> str | None:
        """Return why `verify` cannot compare with a gold answer of a user's data; `None` if it can.

        By default an answer is text. A task whose gold answers are other data overrides this.
        """
        return None if isinstance(gold, str) else "it must be text"

    def documents(self) -> Iterator[str]:
        """Return plain text of the task's domain for pretraining, without worked solutions. Empty by default."""
        return iter(())
