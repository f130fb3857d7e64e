"""The stage `teacher_logprobs`: store a teacher's likeliest tokens for worked solutions."""

import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt

from smallwit.recipe.section import PartOrder
from smallwit.recipe.stage import SMOKE_PROBLEMS, Place, Stage, TaskNeed, Unfinished
from smallwit.stages.estimate import Known, StageEstimate
from smallwit.stages.job import Info, Job, Reporter
from smallwit.training.settings import WorkedSolutions

if TYPE_CHECKING:
    from smallwit.recipe.check import Check
    from smallwit.recipe.schema import Recipe


class TeacherLogprobsStage(Stage, WorkedSolutions):
    """Score worked solutions with a teacher once and store its likeliest tokens, as a teacher for train stages."""

    makes = "logprobs"
    preload = ("smallwit.stages.teacher_logprobs.run",)

    adoptable = ("code", "libraries.", "device", "dtype", "seed")

    kind: Literal["teacher_logprobs"]
    model: str = Field(description="a model of the recipe, or an earlier stage that makes one")
    order: PartOrder = "drawn"
    k: PositiveInt = Field(default=64, description="likeliest tokens that are kept at each completion token")
    temperature: PositiveFloat = Field(default=1.0, description="temperature of the stored probabilities")
    micro_tokens: PositiveInt = Field(default=16384, description="padded tokens of one forward pass")

    def inputs(self, recipe: "Recipe") -> list[str]:
        return [self.model, *([self.from_] if self.from_ is not None else [])]

    def asked_models(self) -> list[str]:
        return [self.model]

    def tasks_read(self, recipe: "Recipe") -> list[str]:
        return sorted(self.tasks or recipe.tasks)

    def required_tasks(self) -> Iterator[str]:
        if self.from_ is None:
            yield f"stage '{self.name}' reads their problems"

    def task_needs(self, recipe: "Recipe", place: Place) -> Iterator[TaskNeed]:
        for task in () if self.from_ is not None else self.tasks or recipe.tasks:
            yield TaskNeed("solutions", task, 0, place)

    def charged(self, recipe: "Recipe") -> list[str]:
        """Return the stage whose rows the teacher reads."""
        return [self.from_] if self.from_ is not None else []

    def check(self, check: "Check", place: Place) -> None:
        check.model_before("model", self.model, *place, "model", weights=False)
        check.task_names(self.tasks, *place, "tasks")
        if check.recipe.is_remote(self.model):
            if check.recipe.models[self.model].tokenizer is None:
                what = f"'{self.model}' is behind an endpoint, and a teacher_logprobs stage needs its tokenizer here"
                raise check.refuse(f"{what}; give models.{self.model}.tokenizer", *place, "model")
            if self.temperature != 1.0:
                what = f"an endpoint gives log-probs at temperature 1, not at {self.temperature:g}"
                raise check.refuse(f"{what}; leave temperature out", *place, "temperature")
        if self.from_ is not None:
            check.rows_before("demonstrations from", self.from_, *place, "from")

    def smoke(self) -> Self:
        """Return the stage with the first two problems of each task."""
        return self.model_copy(update={"limit": SMOKE_PROBLEMS, "order": "given"})

    def reading(self, job: Job) -> Iterator[str]:
        """Yield lines on the solutions that the model reads."""
        from smallwit.stages.common.demonstrations import worked_solutions
        from smallwit.stages.common.inputs import tasks_of
        from smallwit.stages.common.reads import source_lines

        if self.from_ is not None:
            yield f"model {self.model} reads the rows of {self.from_}"
            return
        solved = worked_solutions(job, self, tasks_of(job, self.tasks))
        yield from source_lines(f"model {self.model}", solved, "size", None)

    def estimate(self, job: Job, known: Known) -> StageEstimate | None:
        """Return what scoring needs; of a model behind an endpoint nothing is known."""
        if job.recipe.is_remote(self.model):
            return None
        from smallwit.stages.teacher_logprobs.estimate import estimate

        return estimate(self, job)

    def run(self, job: Job, reporter: Reporter) -> Info:
        """Publish the store."""
        from smallwit.stages.teacher_logprobs.run import run

        return run(self, job, reporter)

    def clean_up(self, work: Path, artifact: Path, key: str) -> None:
        """Remove the shards, which are in the artifact."""
        for shard in (work / "shards").glob(f"{key}-*"):
            shutil.rmtree(shard, ignore_errors=True)
        with suppress(OSError):  # there are shards of other keys
            (work / "shards").rmdir()

    def unfinished(self, work: Path, store: Path) -> dict[str, Unfinished]:
        """Return the shards of each key."""
        found: dict[str, list[Path]] = {}
        for shard in sorted((work / "shards").glob("[!.]*-[0-9]*")):
            found.setdefault(shard.name.rpartition("-")[0], []).append(shard)
        return {key: Unfinished(f"{len(shards)} shards", tuple(shards)) for key, shards in found.items()}

    def adopt(self, work: Path, store: Path, old: str, new: str) -> None:
        for shard in self.unfinished(work, store)[old].paths:
            temporary = shard.with_name(f".{shard.name}.tmp")
            shutil.rmtree(temporary, ignore_errors=True)
            shutil.copytree(shard, temporary)
            temporary.rename(shard.with_name(shard.name.replace(old, new)))
