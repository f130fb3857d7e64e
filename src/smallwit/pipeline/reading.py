"""What the stages of a recipe are going to read: `smallwit run --plan`."""

from collections.abc import Iterator
from pathlib import Path

from smallwit.recipe.schema import Recipe
from smallwit.stages.common.reads import part_lines, split_size
from smallwit.stages.job import Job
from smallwit.tasks import load_task
from smallwit.tasks.draw import part_of

_BUDGETS = ("steps", "epochs", "flops", "equal_compute")


def plan_lines(recipe: Recipe, base: Path, data_dir: Path | None) -> Iterator[str]:
    """Yield lines on the budget of each stage and the problems that it reads, and on the evaluation.

    Reads the tasks, and trains and downloads no model. Raises `UserError` for a task that cannot be read.
    """
    for stage in recipe.stages:
        given = {name: getattr(stage, name, None) for name in _BUDGETS}
        # A dataset stage has `steps` of another sort.
        numbers = {name: f"{value:g}" for name, value in given.items() if isinstance(value, int | float)}
        texts = {name: value for name, value in given.items() if isinstance(value, str)}
        budget = ", ".join(f"{name} {text}" for name, text in (numbers | texts).items())
        yield f"{stage.name} ({stage.kind}{f', {budget}' if budget else ''})"
        job = Job(stage, "", recipe, base, data_dir, "cpu", "float32", 1, Path(), Path())
        yield from (f"  {line}" for line in stage.reading(job))
    chosen = recipe.evaluation
    if recipe.model_stages or chosen.stages:
        yield "evaluation"
        for name in chosen.tasks or recipe.tasks:
            task = load_task(name, recipe.tasks[name], data_dir, base)
            part = part_of(task, chosen.split, chosen.problems, order=chosen.order)
            yield from (f"  {line}" for line in part_lines(chosen.split, name, part, split_size(task, chosen.split)))
