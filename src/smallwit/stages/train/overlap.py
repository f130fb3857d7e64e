"""Report test problems that a stage trains on: a score on them measures memory."""

from collections.abc import Callable, Sequence

from smallwit.data.normalise import squeezed, squeezed_formula
from smallwit.stages.common.inputs import tasks_of
from smallwit.stages.job import Job
from smallwit.tasks.draw import part_of
from smallwit.training.problem_stream import TaskProblems


def say_overlap(job: Job, name: str, problems: Sequence[TaskProblems], say: Callable[[str], None]) -> None:
    """Report how many problems of the evaluation are in source `name`, also with other spacing or spelling.

    Tasks that generate their problems keep the splits apart, and are not checked.
    """
    lists = [each for each in problems if isinstance(each.rows, list | tuple)]
    measured = job.recipe.evaluation
    for task in tasks_of(job, measured.tasks) if lists else ():
        there = part_of(task, measured.split, measured.problems, order=measured.order)
        # Only letters and digits are compared first: this is fast, and few problems are equal in them.
        alike: dict[str, list[str]] = {}
        for problem in there:
            alike.setdefault(squeezed(problem.prompt), []).append(squeezed_formula(problem.prompt))
        trained: set[str] = set()
        for each in lists:
            for index in range(each.size):
                prompt = each[index].prompt
                if squeezed(prompt) in alike:
                    trained.add(squeezed_formula(prompt))
        count = sum(formula in trained for formulas in alike.values() for formula in formulas)
        if count:
            say(
                f"source {name}: {count:,} of the {len(there):,} {measured.split} problems of task {task.name} are "
                "in its training data; remove them, or treat the score on them as memory"
            )
