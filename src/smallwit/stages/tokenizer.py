"""The stage that trains the tokenizer of the recipe's new models. The pipeline adds it if a recipe needs one."""

import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smallwit.recipe.stage import Stage
from smallwit.stages.job import Info, Job, Reporter

if TYPE_CHECKING:
    from smallwit.recipe.schema import Recipe


class TokenizerStage(Stage):
    """Train the tokenizer that the recipe's new models share."""

    makes = "tokenizer"
    counted = False
    saves = False

    kind: str = "tokenizer"
    name: str = "tokenizer"

    def tasks_read(self, recipe: "Recipe") -> list[str]:
        return list(recipe.tasks)

    def content(self, recipe: "Recipe", base: Path, data_dir: Path | None) -> dict[str, Any]:
        """Return the settings of the tokenizer."""
        return {"tokenizer": recipe.tokenizer.model_dump() if recipe.tokenizer is not None else None}

    def run(self, job: Job, reporter: Reporter) -> Info:
        """Train on the tasks' training text and publish. Raises `UserError` if the vocabulary is too small."""
        from smallwit.models.handover import save_tokenizer
        from smallwit.models.tokenizer_training import train_tokenizer
        from smallwit.storage.artifacts import publish

        spec = job.recipe.tokenizer
        assert spec is not None  # the stage exists only when the recipe has the section
        started = time.monotonic()
        tokenizer = train_tokenizer(_texts(job, spec.documents), spec.vocabulary)
        info: Info = {"seconds": time.monotonic() - started, "tokens": len(tokenizer)}
        publish(job.folder, lambda folder: save_tokenizer(tokenizer, folder), job.manifest(info))
        return info


def _texts(job: Job, count: int) -> Iterator[str]:
    """Yield the prompts, solutions and documents of each task's training split, `count` of each."""
    from smallwit.stages.common.inputs import tasks_of
    from smallwit.tasks.draw import part_of

    for task in tasks_of(job, None):
        for problem in part_of(task, "train", count):
            yield problem.prompt
            if problem.solution is not None:
                yield problem.solution
        yield from islice(task.documents(), count)
