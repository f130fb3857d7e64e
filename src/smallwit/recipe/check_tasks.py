"""What the stages of a recipe ask of its tasks, checked before anything runs."""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from smallwit.errors import UserError
from smallwit.recipe.check_protocol import Check
from smallwit.recipe.rewards import FunctionReward
from smallwit.recipe.schema import (
    DatasetStage,
    Demonstrations,
    Recipe,
    RejectionSamplingStage,
    Rollouts,
    TeacherLogprobsStage,
    TrainStage,
)

if TYPE_CHECKING:
    from smallwit.tasks import Task

# A task whose first problems have no worked solution is taken to have none.
_LOOKED_AT = 100


def check_tasks(check: Check, data_dir: Path | None, read_data: bool) -> None:
    """Raises `UserError` for a task that cannot be had, programs that this machine runs with too little around them,
    code of the user's own that fails or hangs on a right answer, and, with `read_data`, problems that a stage asks for
    and the task does not have."""
    tasks = _load_tasks(check, data_dir)
    _isolated(check, tasks)
    if read_data:
        read: set[tuple[str, str, int]] = set()
        for what, name, skip, place in _needs(check.recipe):
            if (what, name, skip) not in read:
                read.add((what, name, skip))
                _has_problems(check, tasks[name], what, skip, place)
    _tried_out(check, tasks, data_dir, read_data)


def _load_tasks(check: Check, data_dir: Path | None) -> "dict[str, Task]":
    # Imported here: the shared nouns stand below the tasks.
    from smallwit.tasks import load_task

    tasks = {}
    for name, options in check.recipe.tasks.items():
        try:
            tasks[name] = load_task(name, options, data_dir, check.base)
        except UserError as error:
            raise check.refuse(f"{error}{check.lines.changes('tasks', name)}", "tasks", name) from error
    return tasks


def _isolated(check: Check, tasks: "dict[str, Task]") -> None:
    """Where programs are run for a verdict, this machine must surround them well enough, or the user accept less."""
    from smallwit.verify import code
    from smallwit.verify.consent import OPTION

    probed = False
    for name, place in _judged(check.recipe):
        needed = tasks[name].isolation
        probed = probed or needed is not None
        accept = f"tasks.{name}.isolation: rlimits in the recipe, or {OPTION}"
        if refused := code.objection(f"task {name}", needed, accept):
            raise check.refuse(refused, *place)
    if probed:
        code.close()


def _judged(recipe: Recipe) -> Iterator[tuple[str, tuple[str | int, ...]]]:
    """The tasks whose verifiers judge what models write, and where in the recipe that is asked."""
    everything = list(recipe.tasks)
    measured = recipe.evaluation.tasks or everything
    for index, stage in enumerate(recipe.stages):
        place: tuple[str | int, ...] = ("stages", index)
        names: Sequence[str] = ()
        if isinstance(stage, TrainStage):
            for source, rows in stage.sources.items():
                for name in (rows.tasks or everything) if isinstance(rows, Rollouts) else ():
                    yield name, (*place, "sources", source)
            names = (stage.validation.tasks or measured) if stage.validation is not None else ()
        elif isinstance(stage, RejectionSamplingStage):
            names = stage.tasks or everything
        elif isinstance(stage, DatasetStage) and stage.uses_verifiers:
            names = stage.tasks_of_rows(everything)
        for name in names:
            yield name, place
    if any(isinstance(stage, TrainStage) for stage in recipe.stages) or recipe.evaluation.stages:
        for name in measured:
            yield name, ("evaluation",)


def _tried_out(check: Check, tasks: "dict[str, Task]", data_dir: Path | None, read_data: bool) -> None:
    """The `verify` of each of the user's own tasks, and each reward function, on an answer that should be right."""
    from smallwit.tasks.dataset import DatasetTask
    from smallwit.tasks.trial import Trial, try_out
    from smallwit.tasks.user_task import UserTask

    rewards = _reward_functions(check.recipe)
    needs = [need for need in _needs(check.recipe) if need[0] != "documents"]
    for name, task in tasks.items():
        first = next((need for need in needs if need[1] == name), None)
        within_reach = read_data or not isinstance(task, DatasetTask)
        if first is None or not (isinstance(task, UserTask) or (rewards[name] and within_reach)):
            continue
        split = "train" if first[0] == "solutions" else first[0]
        options = check.recipe.tasks[name]
        try:
            try_out(Trial(name, options, data_dir, check.base, split, first[2], tuple(rewards[name])))
        except UserError as error:
            raise check.refuse(f"{error}{check.lines.changes('tasks', name)}", "tasks", name) from error


def _reward_functions(recipe: Recipe) -> dict[str, list[str]]:
    """For each task, the user's functions that its rollouts are paid by."""
    found: dict[str, list[str]] = {name: [] for name in recipe.tasks}
    sources = [source for stage in recipe.stages if isinstance(stage, TrainStage) for source in stage.sources.values()]
    for source in sources:
        if not isinstance(source, Rollouts):
            continue
        functions = [part.function for part in source.reward if isinstance(part, FunctionReward)]
        for name in source.tasks or recipe.tasks:
            found[name] += [function for function in functions if function not in found[name]]
    return found


def _needs(recipe: Recipe) -> Iterator[tuple[str, str, int, tuple[str | int, ...]]]:
    """What the stages ask of each task: a split, `solutions` or `documents`; how many problems are passed over
    first; and where that is asked."""
    everything = list(recipe.tasks)
    for index, stage in enumerate(recipe.stages):
        place: tuple[str | int, ...] = ("stages", index)
        if isinstance(stage, RejectionSamplingStage):
            for task in stage.tasks or everything:
                yield "train", task, stage.skip, place
            continue
        if isinstance(stage, TeacherLogprobsStage):
            for task in () if stage.from_ is not None else stage.tasks or everything:
                yield "solutions", task, 0, place
            continue
        if isinstance(stage, DatasetStage):
            for task, split, where in stage.task_splits():
                yield split, task, 0, (*place, *where)
            continue
        for name, source in stage.sources.items():
            if isinstance(source, Demonstrations | Rollouts) and source.from_ is not None:
                continue
            what = {"demonstrations": "solutions", "text": "documents", "rollouts": "train"}[source.kind]
            for task in source.tasks or everything:
                skip = source.skip if isinstance(source, Rollouts) else 0
                yield what, task, skip, (*place, "sources", name)
        if stage.validation is not None:
            for task in stage.validation.tasks or recipe.evaluation.tasks or everything:
                yield "validation", task, 0, (*place, "validation")
    measured = recipe.evaluation.tasks or everything
    for task in measured if any(isinstance(stage, TrainStage) for stage in recipe.stages) else ():
        yield recipe.evaluation.split, task, 0, ("evaluation",)


def _has_problems(check: Check, task: "Task", what: str, skip: int, place: tuple[str | int, ...]) -> None:
    """Read the first rows of a task: a missing file or split shows now and not after an hour of training."""
    if what == "documents":
        if next(iter(task.documents()), None) is None:
            raise check.refuse(f"task {task.name} has no documents; leave it out of this text source", *place)
        return
    split = "train" if what == "solutions" else what
    try:
        problems = task.problems(split)
        # A sequence is not walked through: its problems may be made when they are asked for.
        span = (skip, skip + _LOOKED_AT)
        first = problems[slice(*span)] if isinstance(problems, Sequence) else list(islice(problems, *span))
    except UserError as error:
        raise check.refuse(str(error), *place) from error
    if not first:
        behind = f" behind the first {skip}" if skip else ""
        raise check.refuse(f"task {task.name} has no {split} problems{behind}; ask for a task that has", *place)
    if what == "solutions" and all(problem.solution is None for problem in first):
        remedy = "collect some by a rejection_sampling stage, or leave the task out"
        raise check.refuse(f"task {task.name} has no worked solutions to learn from; {remedy}", *place)
