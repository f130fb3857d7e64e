"""What a train stage is going to read, without training: for `smallwit run --plan`."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from smallwit.stages.common.demonstrations import posed_problems, worked_solutions
from smallwit.stages.common.inputs import tasks_of
from smallwit.stages.common.reads import epoch_items, part_lines, source_items, source_lines, split_size
from smallwit.stages.job import Job
from smallwit.stages.train import TrainStage
from smallwit.tasks.draw import part_of
from smallwit.training.problem_stream import TaskProblems
from smallwit.training.settings import Demonstrations, Rollouts, Text


def reading(stage: TrainStage, job: Job) -> Iterator[str]:
    """Yield lines on the problems and epochs of each source, and on the validation."""
    for name, spec in stage.sources.items():
        if isinstance(spec, Text):
            yield f"source {name} reads documents of {', '.join(spec.tasks or job.recipe.tasks)}"
            continue
        problems = source_problems(job, spec)
        if problems is None:
            yield f"source {name} reads the rows of {spec.rows_from}; they are counted when the stage starts"
            continue
        items = None if stage.steps is None else source_items(spec, stage.steps)
        most = spec.rows_from is not None and not is_made(job, spec.rows_from)
        if stage.epochs is not None and isinstance(spec, Demonstrations):
            items = epoch_items(stage.epochs, sum(each.size for each in problems))
            yield f"{stage.epochs:g} epochs are {'at most ' if most else ''}{-(-items // spec.batch):,} steps"
        fewest = most and stage.epochs is None
        yield from source_lines(f"source {name}", problems, spec.weights, items, most=most, fewest=fewest)
        if isinstance(spec, Demonstrations) and spec.kept_length is not None:
            yield f"source {name} leaves out what is longer than {spec.kept_length:,} tokens"
    if stage.validation is not None:
        chosen = stage.validation
        for task in tasks_of(job, chosen.tasks or job.recipe.evaluation.tasks):
            part = part_of(task, "validation", chosen.problems, order=chosen.order)
            yield from part_lines("validation", task.name, part, split_size(task, "validation"))


def is_made(job: Job, stage: str) -> bool:
    """Return whether the rows of the stage are there."""
    return stage in job.inputs and Path(job.inputs[stage]).is_dir()


def source_problems(job: Job, spec: Demonstrations | Rollouts) -> Sequence[TaskProblems] | None:
    """Return the problems of a source; of rows that are not there yet as many as there can be, `None` if unknown."""
    tasks = tasks_of(job, spec.tasks)
    if spec.rows_from is None or is_made(job, spec.rows_from):
        return (
            worked_solutions(job, spec, tasks) if isinstance(spec, Demonstrations) else posed_problems(job, spec, tasks)
        )
    origin = job.recipe.stage(spec.rows_from)
    most = origin.most_rows(job) if origin is not None else None
    if most is None:
        return None
    read = [each for each in most if each.task.name in {task.name for task in tasks}]
    if isinstance(spec, Demonstrations) and spec.limit is not None:
        read = [TaskProblems(each.task, each.rows, each.first, min(each.size, spec.limit)) for each in read]
    return read
