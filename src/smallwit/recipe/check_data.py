"""What a dataset stage says of the other parts of its recipe, checked before anything runs."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from smallwit.errors import UserError
from smallwit.recipe.data import Decontaminate, FileRows, Gather, RowSourceSpec, StageRows, TaskRows
from smallwit.suggestions import hint

if TYPE_CHECKING:
    from smallwit.recipe.check import Check
    from smallwit.stages.dataset import DatasetStage

Place = tuple[str | int, ...]


def check_construct_stage(check: "Check", index: int, stage: "DatasetStage") -> None:
    """Raises `UserError` for models, stages, tasks, suites and files that the steps name and that are not there."""
    for number, step in enumerate(stage.steps):
        place = ("stages", index, "steps", number)
        for name in step.models:
            check.model_before("model", name, *place, weights=False)
        if isinstance(step, Decontaminate):
            _suites(check, step, place)
        if isinstance(step, Gather):
            for count, source in enumerate(step.sources):
                _source(check, source, (*place, "sources", count))


def rows_of_tasks(stage: "DatasetStage") -> Iterator[tuple[TaskRows, Place]]:
    """The sources that read a task's problems, and where in the stage they stand."""
    for number, step in enumerate(stage.steps):
        for count, source in enumerate(step.sources if isinstance(step, Gather) else ()):
            if isinstance(source, TaskRows):
                yield source, ("steps", number, "sources", count)


def judged_tasks(stage: "DatasetStage", everything: Sequence[str]) -> list[str]:
    """The tasks that the rows of a stage may be of: those that its sources name, or all of them where another stage
    made the rows."""
    sources = [source for step in stage.steps if isinstance(step, Gather) for source in step.sources]
    if any(isinstance(source, StageRows) for source in sources):
        return list(everything)
    names = (source.task for source in sources if not isinstance(source, StageRows))
    return list(dict.fromkeys(name for name in names if name is not None))


def _suites(check: "Check", step: Decontaminate, place: Place) -> None:
    # Imported here: the shared nouns stand below the tasks.
    from smallwit.tasks.loading import TASKS

    known = dict.fromkeys([*TASKS, *check.recipe.tasks])
    for key, names in (("against", step.against or ()), ("accept_missing", step.accept_missing)):
        for index, name in enumerate(names):
            if name not in known:
                raise check.refuse(f"there is no suite '{name}'; {hint(name, known)}", *place, key, index)


def _source(check: "Check", source: RowSourceSpec, place: Place) -> None:
    if isinstance(source, StageRows):
        check.rows_before("rows from", source.from_, *place, "from")
    elif source.task is not None and source.task not in check.recipe.tasks:
        raise check.refuse(f"unknown task '{source.task}'; {hint(source.task, check.recipe.tasks)}", *place, "task")
    if isinstance(source, FileRows):
        # Imported here: the shared nouns stand below the workshops.
        from smallwit.data.gather import files_of

        try:
            files_of(source, check.base)
        except UserError as error:
            raise check.refuse(str(error), *place, "path") from error
