"""Load problems and worked solutions for training and for teacher log-probs."""

import json
from collections.abc import Hashable, Sequence
from pathlib import Path

from smallwit.data.dataset import read_problems
from smallwit.errors import UserError
from smallwit.models.chat import ChatTokenizer
from smallwit.models.template_check import turn_shape
from smallwit.stages.job import Job
from smallwit.tasks.base import Problem, Task
from smallwit.tasks.draw import part
from smallwit.training.demonstrations import demonstration_examples, encode_problems
from smallwit.training.problem_stream import TaskProblems
from smallwit.training.settings import UNGRADED, Rollouts, WorkedSolutions

_ANY_LENGTH = 1 << 31


class Ungraded(Task):
    """A placeholder task for rows without a task: they are training data, and cannot be graded."""

    name = UNGRADED


def worked_solutions(job: Job, spec: WorkedSolutions, tasks: Sequence[Task]) -> list[TaskProblems]:
    """Return the problems that `spec` names, by task, with solutions of the tasks or of an earlier stage.

    Rows of a dataset without a task are included, unless `spec` names tasks. Raises `UserError` if there are no rows.
    """
    if spec.from_ is None:
        return [TaskProblems.of(task, "train", limit=spec.limit, order=spec.part_order) for task in tasks]
    rows = read_problems(Path(job.inputs[spec.from_]))
    named = [(task, rows.get(task.name, [])) for task in tasks]
    if spec.tasks is None:
        named.append((Ungraded(), rows.get(None, [])))
    return _some([(task, part(rows, spec.limit, order=spec.part_order)) for task, rows in named], job, spec.from_)


def posed_problems(job: Job, spec: Rollouts, tasks: Sequence[Task]) -> list[TaskProblems]:
    """Return the problems of rollouts: of the tasks' training splits, or of a dataset's rows that have a task.

    A problem that is in several rows is used once. Raises `UserError` if there are no problems.
    """
    if spec.from_ is None:
        return [TaskProblems.of(task, "train", skip=spec.skip, order=spec.order) for task in tasks]
    rows = read_problems(Path(job.inputs[spec.from_]))
    named = [(task, list({_asked_key(row): row for row in rows.get(task.name, [])}.values())) for task in tasks]
    return _some([(task, part(rows, None, skip=spec.skip, order=spec.order)) for task, rows in named], job, spec.from_)


def check_conversations(
    job: Job,
    spec: WorkedSolutions | Rollouts,
    problems: Sequence[TaskProblems],
    chat: ChatTokenizer,
) -> None:
    """Encode one conversation of each shape, so that errors of the chat template come before the first step.

    A shape is the order of roles and the kinds of content of the turns. Raises `UserError` with the row and the dataset
    for a conversation that the chat template cannot render with the settings of `spec`.
    """
    if spec.from_ is None:
        return
    shapes: set[Hashable] = set()
    for each in problems:
        for index in range(each.size):
            problem = each[index]
            shape = (bool(problem.tools), *map(turn_shape, problem.messages))
            if not problem.messages or shape in shapes:
                continue
            shapes.add(shape)
            try:
                if isinstance(spec, Rollouts):
                    encode_problems(chat, [problem])
                else:
                    demonstration_examples([(each.task, problem)], chat, _ANY_LENGTH, spec.loss_on)
            except UserError as error:
                raise UserError(f"stage {job.name}: {error} (rows: {job.inputs[spec.from_]})") from error


def _asked_key(problem: Problem) -> str:
    """Return a key that is equal for rows with the same question and tools."""
    return json.dumps([problem.asked, problem.tools], sort_keys=True)


def _some(named: Sequence[tuple[Task, Sequence[Problem]]], job: Job, origin: str) -> list[TaskProblems]:
    found = [TaskProblems(task, problems, 0, len(problems)) for task, problems in named if problems]
    if not found:
        raise UserError(f"stage {job.name}: {origin} has no rows of {', '.join(task.name for task, _ in named)}")
    return found
