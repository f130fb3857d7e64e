"""Problems and worked solutions for the stages that learn from them or have a teacher read them."""

from collections.abc import Sequence
from pathlib import Path

from smallwit.data.dataset import read_problems
from smallwit.errors import UserError
from smallwit.recipe.schema import Rollouts, WorkedSolutions
from smallwit.stages.job import Job
from smallwit.tasks.base import Problem, Task
from smallwit.training.sources import TaskProblems


class Ungraded(Task):
    """Stands for the task of rows that name none: they can be learned from, and not be graded."""

    name = "ungraded"


def worked_solutions(job: Job, spec: WorkedSolutions, tasks: Sequence[Task]) -> list[TaskProblems]:
    """The problems that `spec` names, by task; their solutions are the tasks' own or an earlier stage's.

    Rows of a dataset that belong to no task are read too, unless `spec` names tasks. Raises `UserError` when nothing
    is there to learn from.
    """
    if spec.from_ is None:
        return [TaskProblems.of(task, "train", limit=spec.limit) for task in tasks]
    rows = read_problems(Path(job.inputs[spec.from_]))
    named = [(task, rows.get(task.name, [])) for task in tasks]
    if spec.tasks is None:
        named.append((Ungraded(), rows.get(None, [])))
    return _some([(task, problems[: spec.limit]) for task, problems in named], job, spec.from_)


def posed_problems(job: Job, spec: Rollouts, tasks: Sequence[Task]) -> list[TaskProblems]:
    """The problems that rollouts answer: of the tasks' training splits, or of a construct stage's rows that have a task
    to verify them. A problem that several rows answer is asked once. Raises `UserError` when there is none."""
    if spec.from_ is None:
        return [TaskProblems.of(task, "train", skip=spec.skip) for task in tasks]
    rows = read_problems(Path(job.inputs[spec.from_]))
    named = [(task, list({row.prompt: row for row in rows.get(task.name, [])}.values())) for task in tasks]
    return _some([(task, problems[spec.skip :]) for task, problems in named], job, spec.from_)


def _some(named: Sequence[tuple[Task, Sequence[Problem]]], job: Job, origin: str) -> list[TaskProblems]:
    found = [TaskProblems(task, problems, 0, len(problems)) for task, problems in named if problems]
    if not found:
        raise UserError(f"stage {job.name}: {origin} has no rows of {', '.join(task.name for task, _ in named)}")
    return found
