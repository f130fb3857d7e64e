"""Problems and worked solutions for the stages that learn from them or have a teacher read them."""

import json
from collections.abc import Hashable, Sequence
from pathlib import Path

from smallwit.data.dataset import read_problems
from smallwit.errors import UserError
from smallwit.models.chat import ChatTokenizer
from smallwit.models.template_check import turn_shape
from smallwit.stages.job import Job
from smallwit.tasks.base import Problem, Task
from smallwit.training.demonstrations import demonstration_examples, encode_problems
from smallwit.training.problem_stream import TaskProblems
from smallwit.training.settings import Rollouts, WorkedSolutions

_ANY_LENGTH = 1 << 31


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
    """The problems that rollouts answer: of the tasks' training splits, or of a dataset stage's rows that have a task
    to verify them. A problem that several rows answer is asked once. Raises `UserError` when there is none."""
    if spec.from_ is None:
        return [TaskProblems.of(task, "train", skip=spec.skip) for task in tasks]
    rows = read_problems(Path(job.inputs[spec.from_]))
    named = [(task, list({_asked_key(row): row for row in rows.get(task.name, [])}.values())) for task in tasks]
    return _some([(task, problems[spec.skip :]) for task, problems in named], job, spec.from_)


def check_conversations(
    job: Job,
    spec: WorkedSolutions | Rollouts,
    problems: Sequence[TaskProblems],
    chat: ChatTokenizer,
) -> None:
    """Encode one conversation of each shape, so that a refusal comes before the first step.

    A shape is the order of roles and what the turns hold. Raises `UserError` with the row and the dataset for one that
    the tokenizer's chat template cannot render as `spec` asks for it.
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
    """What is asked: equal for two rows that ask the same."""
    return json.dumps([problem.asked, problem.tools], sort_keys=True)


def _some(named: Sequence[tuple[Task, Sequence[Problem]]], job: Job, origin: str) -> list[TaskProblems]:
    found = [TaskProblems(task, problems, 0, len(problems)) for task, problems in named if problems]
    if not found:
        raise UserError(f"stage {job.name}: {origin} has no rows of {', '.join(task.name for task, _ in named)}")
    return found
