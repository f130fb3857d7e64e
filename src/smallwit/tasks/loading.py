"""Loading of tasks by name: built-in ones, and classes in files of the user."""

from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from smallwit.errors import UserError
from smallwit.suggestions import hint
from smallwit.tasks.base import Task
from smallwit.tasks.draw import part_of
from smallwit.tasks.registry import task_classes, task_collections
from smallwit.tasks.user_file import user_class, user_file
from smallwit.tasks.user_task import make_task, make_user_task

_CHUNK = 512


def load_task(
    name: str, options: Mapping[str, Any] | None = None, data_dir: Path | None = None, base: Path | None = None
) -> Task:
    """Return the task called `name`, made with `options`.

    The option `class` says which task it is where the name does not: a built-in name, or `path/to/file.py:ClassName`,
    relative to `base` (the recipe's folder). Such a reference may also stand in place of the name. `data_dir` goes to
    tasks that read data files. A user's class needs `name`, `problems(split)` and `verify(problem, response)`; it
    need not inherit from `Task`. Raises `UserError`, one line, for anything that does not fit.
    """
    arguments = dict(options or {})
    reference = arguments.pop("class", name)
    if not isinstance(reference, str):
        raise UserError(f"task {name}: class is {reference!r}; give a task's name or file.py:ClassName")
    if _is_file(reference):
        path, class_name = user_file(reference, base)
        task: Task = make_user_task(user_class(path, class_name), path, class_name, arguments, data_dir)
    else:
        collection, colon, family = reference.partition(":")
        known: Mapping[str, type[Task]] = task_classes()
        if colon and collection in task_collections():
            known = {reference: task_collections()[collection]}
            arguments["family"] = family
        if reference not in known:
            raise UserError(
                f"unknown task '{reference}'; {hint(reference, known)} "
                "(a task of your own is given as path/to/file.py:ClassName)"
            )
        task = make_task(known[reference], f"task {name}", arguments, data_dir)
    if not _is_file(name):
        task.name = name
    return task


def task_bytes(name: str, options: Mapping[str, Any] | None = None, base: Path | None = None) -> bytes:
    """Return the bytes of the file that holds a user's own task, for cache keys; empty for a built-in task."""
    reference = str((options or {}).get("class", name))
    return user_file(reference, base)[0].read_bytes() if _is_file(reference) else b""


def check_gold(task: Task, split: str, limit: int | None = None) -> list[str]:
    """Return the ids of problems whose own gold answer or worked solution does not score 1, strictly read, in order.

    `limit` checks a drawn part of so many problems. A task that writes gold responses (`gold_response`) has them
    checked beside its solutions; problems that have neither cannot be checked and are listed.
    """
    failing: list[str] = []
    write = getattr(task, "gold_response", None)
    problems = iter(task.problems(split) if limit is None else part_of(task, split, limit))
    while chunk := list(islice(problems, _CHUNK)):
        pairs = [(problem, problem.solution) for problem in chunk if problem.solution is not None]
        if write is not None:
            pairs += [(problem, write(problem)) for problem in chunk]
        verdicts = task.verify_batch(pairs)
        good = {problem.id for problem, _ in pairs}
        for (problem, _), verdict in zip(pairs, verdicts, strict=True):
            if not verdict.score == verdict.strict == 1.0:
                good.discard(problem.id)
        failing += [problem.id for problem in chunk if problem.id not in good]
    return failing


def _is_file(reference: str) -> bool:
    return ".py" in reference or "/" in reference or "\\" in reference
