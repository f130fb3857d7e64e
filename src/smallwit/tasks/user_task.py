"""A task of the user: a class in a file outside the package, named as `path/to/file.py:ClassName`."""

import inspect
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast, overload

from smallwit.errors import UserError
from smallwit.suggestions import hint
from smallwit.tasks.base import Problem, Task
from smallwit.tasks.user_file import guarded
from smallwit.verify import Verdict
from smallwit.verify.consent import accepting, known_level


class UserTask(Task):
    """A wrapper of a user's task that checks all that it returns.

    Whatever its methods raise becomes a `UserError`: one line with the file, the line, and the user's exception.
    """

    def __init__(self, task: Any, path: Path, class_name: str) -> None:
        self._task, self._path, self._class = task, path, class_name
        self._where = f"{path}: {class_name}"
        self.name = _own_name(task, self._where)
        self.origin = str(getattr(task, "origin", ""))
        self.license = str(getattr(task, "license", ""))
        self.isolation = getattr(task, "isolation", None)
        self.exchangeable = bool(getattr(task, "exchangeable", False))
        try:
            self.isolation = None if self.isolation is None else known_level(self.isolation)
        except ValueError as error:
            raise UserError(f"{self._where}: {error}") from error
        for method, arguments in (("problems", "(split)"), ("verify", "(problem, response)")):
            _check_method(getattr(task, method, None), method, arguments, self._where)

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("_"):
            raise AttributeError(attribute)
        value = getattr(self._task, attribute)
        return self._guarded(attribute, value) if inspect.ismethod(value) else value

    def problems(self, split: str) -> Iterable[Problem]:
        """Return the user's problems; each one is checked when it is reached, and those of a list at once."""
        what = f"{self._class}.problems({split!r})"
        with guarded(self._path, what):
            problems = self._task.problems(split)
        if isinstance(problems, list | tuple):
            return list(self._unlike(problems, split))
        if isinstance(problems, Sequence) and not isinstance(problems, str):
            return _Rows(problems, self._checked, self._path, what)
        if not isinstance(problems, Iterable):
            raise UserError(f"{self._where}.problems({split!r}) gave {_called(problems)}; give a list of Problem")
        return self._unlike(self._each(problems, what), split)

    def verify(self, problem: Problem, response: str) -> Verdict:
        """Return the user's verdict on one response."""
        with guarded(self._path, f"{self._class}.verify on problem {problem.id}"), accepting(self.isolation):
            verdict = self._task.verify(problem, response)
        return self._verdict(verdict)

    def verify_batch(self, pairs: Sequence[tuple[Problem, str]]) -> list[Verdict]:
        """Return the user's `verify_batch` if there is one, else `verify` for each pair."""
        if not self.judges_beside:
            return [self.verify(problem, response) for problem, response in pairs]
        with guarded(self._path, f"{self._class}.verify_batch"), accepting(self.isolation):
            given = list(self._task.verify_batch(pairs))
        verdicts = [self._verdict(verdict) for verdict in given]
        if len(verdicts) != len(pairs):
            raise UserError(f"{self._where}.verify_batch gave {len(verdicts)} verdicts for {len(pairs)} responses")
        return verdicts

    @property
    def judges_beside(self) -> bool:
        """Return whether the user's task has a `verify_batch` of its own."""
        batch = getattr(self._task, "verify_batch", None)
        return batch is not None and getattr(batch, "__func__", None) is not Task.verify_batch

    def gold_trouble(self, gold: Any) -> str | None:
        """Return the message of the user's `gold_trouble`, or `None`: only its `verify` knows what it compares with."""
        judge = getattr(self._task, "gold_trouble", None)
        inherited = getattr(judge, "__func__", None) is Task.gold_trouble
        return None if judge is None or inherited else judge(gold)

    def documents(self) -> Iterator[str]:
        """Yield the user's documents, or none."""
        documents = getattr(self._task, "documents", None)
        if documents is None:
            return
        what = f"{self._class}.documents"
        with guarded(self._path, what):
            given = documents()
        if not isinstance(given, Iterable) or isinstance(given, str):
            raise UserError(f"{self._where}.documents gave {_called(given)}; give texts, as a list or by yield")
        for document in self._each(given, what):
            if not isinstance(document, str):
                raise UserError(f"{self._where}.documents gave {_called(document)}; give texts")
            yield document

    def _guarded(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            with guarded(self._path, f"{self._class}.{name}"):
                return method(*arguments, **named)

        return call

    def _each(self, values: Iterable[Any], what: str) -> Iterator[Any]:
        """Yield the user's problems, which may come from a generator that fails in the middle."""
        with guarded(self._path, what):
            iterator = iter(values)
        while True:
            with guarded(self._path, what):
                try:
                    value = next(iterator)
                except StopIteration:
                    return
            yield value

    def _checked(self, problem: Any) -> Problem:
        if not isinstance(problem, Problem):
            raise UserError(f"{self._where}.problems gave {_called(problem)}; give smallwit.tasks.Problem objects")
        if wrong := _wrong_field(problem):
            raise UserError(f"{self._where}.problems: problem {problem.id!r:.60} has {wrong}")
        return problem

    def _unlike(self, problems: Iterable[Any], split: str) -> Iterator[Problem]:
        """Yield the problems, each checked, no two of one id."""
        ids: set[str] = set()
        for each in problems:
            problem = self._checked(each)
            if problem.id in ids:
                what = f"gave two problems with the id {problem.id!r:.60}"
                raise UserError(f"{self._where}.problems({split!r}) {what}; give each its own")
            ids.add(problem.id)
            yield problem

    def _verdict(self, verdict: Any) -> Verdict:
        if not isinstance(verdict, Verdict):
            raise UserError(f"{self._where}.verify gave {_called(verdict)}; give a smallwit.tasks.Verdict")
        for score in (verdict.score, verdict.strict):
            if score is not None and not (isinstance(score, int | float) and 0.0 <= score <= 1.0):
                raise UserError(f"{self._where}.verify gave the score {score!r}; give None or a number from 0 to 1")
        if verdict.answer is not None and not isinstance(verdict.answer, str):
            raise UserError(f"{self._where}.verify gave the answer {_called(verdict.answer)}; give it as text, or None")
        if not isinstance(verdict.reason, str):
            raise UserError(f"{self._where}.verify gave the reason {_called(verdict.reason)}; give a word")
        return verdict


class _Rows(Sequence[Problem]):
    """A sequence of the user, whose problems are checked when they are read."""

    def __init__(self, rows: Sequence[Any], check: Callable[[Any], Problem], path: Path, what: str) -> None:
        self._rows, self._check, self._path, self._what = rows, check, path, what

    def __len__(self) -> int:
        with guarded(self._path, self._what):
            return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Problem: ...
    @overload
    def __getitem__(self, index: slice) -> list[Problem]: ...
    def __getitem__(self, index: int | slice) -> Problem | list[Problem]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        with guarded(self._path, self._what):
            problem = self._rows[index]
        return self._check(problem)


def make_task(made: type, where: str, arguments: dict[str, Any], data_dir: Path | None) -> Any:
    """Return `made(**arguments)`; raises `UserError` for an unknown or missing option."""
    arguments = _checked_options(made, where, arguments, data_dir)
    try:
        return made(**arguments)
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: cannot be made with its options: {error}".splitlines()[0]) from error


def _checked_options(made: type, where: str, arguments: dict[str, Any], data_dir: Path | None) -> dict[str, Any]:
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
    return {**arguments, "data_dir": data_dir} if "data_dir" in parameters else arguments


def make_user_task(made: type, path: Path, class_name: str, arguments: dict[str, Any], data_dir: Path | None) -> Task:
    """Return the task of a class in a user's file. Raises `UserError`, one line, for whatever is wrong with it."""
    with guarded(path, f"{class_name} cannot be made with its options"):
        task = made(**_checked_options(made, f"{path}: {class_name}", arguments, data_dir))
    return UserTask(task, path, class_name)


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
    if inspect.iscoroutinefunction(method):
        raise UserError(f"{where}.{name} is async, and nobody awaits it; define it by def alone")
    try:
        inspect.signature(cast(Any, method)).bind(*[None] * len(arguments.split(",")))
    except TypeError as error:
        raise UserError(f"{where}.{name} must take {arguments}: {error}") from error


def _wrong_field(problem: Problem) -> str:
    """Return what is wrong with the fields of a problem, or an empty text."""
    if not isinstance(problem.id, str) or not problem.id:
        return f"the id {_called(problem.id)}; give a text that no other problem has"
    if not isinstance(problem.prompt, str):
        return f"the prompt {_called(problem.prompt)}; give a text"
    if problem.solution is not None and not isinstance(problem.solution, str):
        return f"the solution {_called(problem.solution)}; give a text, or None"
    for name, values in (("messages", problem.messages), ("tools", problem.tools)):
        if not isinstance(values, list | tuple) or not all(isinstance(value, Mapping) for value in values):
            return f"{name} that are {_called(values)}; give a list of mappings"
    for pair in problem.strata:
        if not isinstance(pair, list | tuple) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
            return f'the stratum {_called(pair)}; give pairs of texts, as ("subject", "algebra")'
    if not isinstance(problem.gold, str | int | float | None):
        try:
            json.dumps(problem.gold)
        except (TypeError, ValueError):
            return f"the gold {_called(problem.gold)}; give text, numbers, or lists and mappings of them"
    return ""


def _called(value: object) -> str:
    return "nothing" if value is None else f"{value!r:.60} ({type(value).__name__})"
