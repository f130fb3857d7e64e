"""Worked solutions for the stages that learn from them or have a teacher read them."""

from collections.abc import Sequence
from pathlib import Path

from smallwit.recipe import WorkedSolutions
from smallwit.stages.answers import read_answers
from smallwit.stages.job import Job
from smallwit.tasks.base import Task
from smallwit.training.sources import TaskProblems


def worked_solutions(job: Job, spec: WorkedSolutions, tasks: Sequence[Task]) -> list[TaskProblems]:
    """The problems that `spec` names, by task; their solutions are the tasks' own or an answers stage's."""
    if spec.from_ is None:
        return [TaskProblems.of(task, "train", limit=spec.limit) for task in tasks]
    answers = read_answers(Path(job.inputs[spec.from_]))
    named = [(task, answers.get(task.name, [])[: spec.limit]) for task in tasks]
    return [TaskProblems(task, rows, 0, len(rows)) for task, rows in named if rows]
