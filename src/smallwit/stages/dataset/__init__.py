"""The stage `dataset`: build a dataset by steps."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from smallwit.data.build import content_of, origin_of_tokenizer
from smallwit.data.construction import complete_steps
from smallwit.data.step import DataStep
from smallwit.errors import UserError
from smallwit.network import hub
from smallwit.recipe.section import ByKind
from smallwit.recipe.stage import SMOKE_PROBLEMS, SMOKE_TOKENS, Place, Stage, TaskNeed
from smallwit.stages.job import Info, Job, Reporter
from smallwit.storage.artifacts import file_hash
from smallwit.tasks import load_task

if TYPE_CHECKING:
    from smallwit.recipe.check import Check
    from smallwit.recipe.schema import Recipe


class DatasetStage(Stage):
    """Build a dataset by steps, for sources of train stages (`from`) or for its own sake (`smallwit data build`)."""

    makes = "rows"
    preload = ("smallwit.stages.dataset.run",)
    standalone = True

    kind: Literal["dataset"]
    steps: list[Annotated[DataStep, ByKind()]] = Field(
        description="the steps, in their order: gather first, write last"
    )
    tokenizer: str | None = Field(
        default=None, description="tokenizer that counts tokens: a model of the recipe, a folder or a hub id"
    )
    on_personal_data: Literal["report", "stop"] = Field(
        default="report", description="what to do if a row that goes to a model seems to hold personal data"
    )

    @field_validator("steps")
    @classmethod
    def _complete(cls, steps: list[DataStep]) -> list[DataStep]:
        return complete_steps(steps)

    @model_validator(mode="after")
    def _consistent(self) -> "DatasetStage":
        if self.tokenizer is None and any(step.counts_tokens for step in self.steps):
            raise ValueError("a step counts tokens; give the stage a tokenizer (a model of the recipe, or a folder)")
        return self

    @property
    def rows_from(self) -> list[str]:
        """Return the names of the earlier stages whose rows the steps read."""
        return list(dict.fromkeys(name for step in self.steps for name in step.stages))

    def asked_models(self) -> list[str]:
        return list(dict.fromkeys(name for step in self.steps for name in step.models))

    def inputs(self, recipe: "Recipe") -> list[str]:
        counting = [self.tokenizer] if self.tokenizer in recipe.models and self.tokenizer is not None else []
        return list(dict.fromkeys([*self.asked_models(), *self.rows_from, *counting]))

    def depends_on_seed(self, recipe: "Recipe") -> bool:
        """Return whether a step samples, or asks a model with new weights; a tokenizer has no weights."""
        asked = [recipe.models[name] for name in self.asked_models() if name in recipe.models]
        return any(step.depends_on_seed for step in self.steps) or any(model.new is not None for model in asked)

    def tasks_read(self, recipe: "Recipe") -> list[str]:
        return sorted(recipe.tasks)

    def content(self, recipe: "Recipe", base: Path, data_dir: Path | None) -> dict[str, Any]:
        """Return the content of the files and suites that the steps read, and of the tokenizer's folder."""
        tasks = {name: load_task(name, options, data_dir, base) for name, options in recipe.tasks.items()}
        content: dict[str, Any] = {"files": content_of(self.steps, tasks, base, data_dir)}
        if self.tokenizer is not None and self.tokenizer not in recipe.models:
            file = Path(origin_of_tokenizer(self.tokenizer, base)) / "tokenizer.json"
            content["tokenizer"] = file_hash(file) if file.is_file() else hub.pinned("models", self.tokenizer)
        return content

    def task_needs(self, recipe: "Recipe", place: Place) -> Iterator[TaskNeed]:
        for number, step in enumerate(self.steps):
            for task, split, where in step.task_splits():
                yield TaskNeed(split, task, 0, (*place, "steps", number, *where))

    def judged_tasks(self, recipe: "Recipe", place: Place) -> Iterator[tuple[str, Place]]:
        if any(step.uses_verifiers for step in self.steps):
            known = list(recipe.tasks)
            tasks = dict.fromkeys(name for step in self.steps for name in step.tasks_of_rows(known))
            yield from ((task, place) for task in tasks)

    @property
    def declared_flops(self) -> float | None:
        """Return 0 if no step uses a model; otherwise the cost is not known in advance."""
        return None if self.asked_models() else 0.0

    def charged(self, recipe: "Recipe") -> list[str]:
        """Return the stages whose rows the steps read."""
        return self.rows_from

    def check(self, check: "Check", place: Place) -> None:
        for number, step in enumerate(self.steps):
            step.check_references(check, (*place, "steps", number))

    def check_machine(self, check: "Check", place: Place, ask_hub: bool) -> None:
        """Check that a tokenizer that is not a model of the recipe can be loaded. Raises `UserError`."""
        known = {*check.recipe.models, *check.stages}
        if self.tokenizer is None or self.tokenizer in known:
            return
        from smallwit.models.tokenizer import require_tokenizer

        try:
            require_tokenizer(self.tokenizer, check.base, ask_hub)
        except UserError as error:
            raise check.refuse(str(error), *place, "tokenizer") from error

    def smoke(self) -> Self:
        """Return the stage with two problems a source and short replies, without verification."""
        steps = [step.smoke(SMOKE_PROBLEMS, SMOKE_TOKENS) for step in self.steps]
        return self.model_copy(update={"steps": [step for step in steps if step is not None]})

    def run(self, job: Job, reporter: Reporter) -> Info:
        """Publish the dataset."""
        from smallwit.stages.dataset.run import run

        return run(self, job, reporter)
