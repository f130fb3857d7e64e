"""The benchmarks that training data must not contain: all that smallwit knows, and the recipe's own tasks."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from smallwit.errors import UserError
from smallwit.suggestions import hint
from smallwit.tasks import benchmark_names, load_task, task_classes
from smallwit.tasks.base import Problem, Task
from smallwit.tasks.dataset import DatasetTask


def suite_names(tasks: Iterable[str]) -> list[str]:
    """Return the names of all benchmarks that a recipe with these tasks can name."""
    return list(dict.fromkeys([*task_classes(), *tasks]))


def test_problems(
    against: Sequence[str] | None, tasks: Mapping[str, Task], data_dir: Path | None, accept_missing: Sequence[str]
) -> tuple[dict[str, list[Problem]], dict[str, str]]:
    """Return the test problems of each benchmark, and the reasons for missing ones that are in `accept_missing`.

    Raises `UserError` for a benchmark that is unknown, or that cannot be loaded and is not in `accept_missing`.
    """
    known = list(dict.fromkeys([*benchmark_names(), *tasks]))
    for name in [*(against or ()), *accept_missing]:
        if name not in known:
            raise UserError(f"decontaminate: there is no suite '{name}'; {hint(name, known)}")
    loaded: dict[str, list[Problem]] = {}
    missing: dict[str, str] = {}
    for name in known if against is None else against:
        task = tasks[name] if name in tasks else load_task(name, None, data_dir)
        if against is None and isinstance(task, DatasetTask) and "test" not in task.sources:
            continue
        try:
            loaded[name] = list(task.problems("test"))
        except UserError as error:
            missing[name] = str(error)
    refused = [name for name in missing if name not in accept_missing]
    if refused:
        what = f"the evaluation suite {refused[0]} cannot be loaded ({missing[refused[0]]})"
        more = f"; nor can {', '.join(refused[1:])}" if refused[1:] else ""
        remedy = f"load it, or accept that it is missing: accept_missing: [{', '.join(refused)}]"
        raise UserError(f"decontaminate: {what}{more}; {remedy}")
    return loaded, missing
