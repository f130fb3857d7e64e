"""A task of the user's own: a class in a file outside the package, named as `path/to/file.py:ClassName`."""

import inspect
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from smallwit.errors import UserError
from smallwit.nearest import hint
from smallwit.tasks.base import Problem, Task
from smallwit.verify import Verdict
from smallwit.verify.consent import accepting, known_level


class UserTask(Task):
    """A task of the user's own in the form that smallwit relies on. Mistakes in it are named where they show."""

    def __init__(self, task: Any, where: str) -> None:
        self._task = task
        self._where = where
        self.name = _own_name(task, where)
        self.origin = str(getattr(task, "origin", ""))
        self.license = str(getattr(task, "license", ""))
        self.isolation = getattr(task, "isolation", None)
        try:
            self.isolation = None if self.isolation is None else known_level(self.isolation)
        except ValueError as error:
            raise UserError(f"{where}: {error}") from error
        for method, arguments in (("problems", "(split)"), ("verify", "(problem, response)")):
            _check_method(getattr(task, method, None), method, arguments, where)

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("_"):
            raise AttributeError(attribute)
        return getattr(self._task, attribute)

    def problems(self, split: str) -> Iterable[Problem]:
        """The user's problems; each one is checked when it is reached."""
        problems = self._task.problems(split)
        if isinstance(problems, list | tuple):
            return list(self._each(problems, split))
        if isinstance(problems, Sequence):
            # Such a sequence may make its problems when they are asked for.
            if problems:
                self._checked(problems[0])
            return problems
        if not isinstance(problems, Iterable):
            raise UserError(f"{self._where}.problems({split!r}) gave {_called(problems)}; give a list of Problem")
        return self._each(problems, split)

    def _each(self, problems: Iterable[Any], split: str) -> Iterator[Problem]:
        ids: set[str] = set()
        for each in problems:
            problem = self._checked(each)
            if problem.id in ids:
                raise UserError(
                    f"{self._where}.problems({split!r}) gave two problems with the id {problem.id!r}; give each its own"
                )
            ids.add(problem.id)
            yield problem

    def verify(self, problem: Problem, response: str) -> Verdict:
        """The user's verdict on one response."""
        with accepting(self.isolation):
            return self._verdict(self._task.verify(problem, response))

    def verify_batch(self, pairs: Sequence[tuple[Problem, str]]) -> list[Verdict]:
        """The user's `verify_batch` if there is one, else `verify` for each pair."""
        batch = getattr(self._task, "verify_batch", None)
        if batch is None:
            return [self.verify(problem, response) for problem, response in pairs]
        with accepting(self.isolation):
            verdicts = [self._verdict(verdict) for verdict in batch(pairs)]
        if len(verdicts) != len(pairs):
            raise UserError(f"{self._where}.verify_batch gave {len(verdicts)} verdicts for {len(pairs)} responses")
        return verdicts

    def gold_trouble(self, gold: Any) -> str | None:
        """What the user's task says of a gold answer, or nothing: its `verify` alone knows what it compares with."""
        judge = getattr(self._task, "gold_trouble", None)
        inherited = getattr(judge, "__func__", None) is Task.gold_trouble
        return None if judge is None or inherited else judge(gold)

    def documents(self) -> Iterator[str]:
        """The user's documents, or none."""
        documents = getattr(self._task, "documents", None)
        return iter(documents()) if documents is not None else iter(())

    def _checked(self, problem: Any) -> Problem:
        if not isinstance(problem, Problem):
            raise UserError(f"{self._where}.problems gave {_called(problem)}; give smallwit.tasks.Problem objects")
        return problem

    def _verdict(self, verdict: Any) -> Verdict:
        if not isinstance(verdict, Verdict):
            raise UserError(f"{self._where}.verify gave {_called(verdict)}; give a smallwit.verify.Verdict")
        for score in (verdict.score, verdict.strict):
            if score is not None and not (isinstance(score, int | float) and 0.0 <= score <= 1.0):
                raise UserError(f"{self._where}.verify gave the score {score!r}; give None or a number from 0 to 1")
        return verdict


def make_task(made: type, where: str, arguments: dict[str, Any], data_dir: Path | None) -> Any:
    """`made(**arguments)`; options that it does not take or that are missing are named."""
    parameters = dict(inspect.signature(made).parameters)
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    collecting = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    known = [name for name, parameter in parameters.items() if parameter.kind not in collecting and name != "data_dir"]
    for option in arguments:
        if option not in known and not takes_all:
            raise UserError(f"{where}: unknown option '{option}'; {hint(option, known, 'its options are')}")
    for name in known:
        if parameters[name].default is inspect.Parameter.empty and name not in arguments:
            raise UserError(f"{where}: option '{name}' is missing; add it to the task's options")
    if "data_dir" in parameters:
        arguments = {**arguments, "data_dir": data_dir}
    try:
        return made(**arguments)
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: cannot be made with its options: {error}".splitlines()[0]) from error


def _own_name(task: Any, where: str) -> str:
    name = getattr(task, "name", None)
    if not isinstance(name, str) or not name:
        raise UserError(f"{where} has no name; add a line such as name = 'reverse'")
    return name


def _check_method(method: Any, name: str, arguments: str, where: str) -> None:
    """Refuse a task that lacks a method, or whose method takes other arguments."""
    inherited = getattr(method, "__func__", None) is getattr(Task, name)
    if not callable(method) or inherited:
        raise UserError(f"{where} has no method {name}; define {name}{arguments}")
    try:
        inspect.signature(cast(Any, method)).bind(*[None] * len(arguments.split(",")))
    except TypeError as error:
        raise UserError(f"{where}.{name} must take {arguments}: {error}") from error


def _called(value: object) -> str:
    return "nothing" if value is None else f"{value!r:.60} ({type(value).__name__})"
