"""The stage `rejection_sampling`: let a model answer training problems and keep what the verifier accepts."""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt

from smallwit.recipe.section import PartOrder
from smallwit.recipe.stage import SMOKE_PROBLEMS, SMOKE_TOKENS, Place, Stage, TaskNeed, Unfinished
from smallwit.stages.estimate import Known, StageEstimate
from smallwit.stages.job import Info, Job, Reporter

if TYPE_CHECKING:
    from smallwit.recipe.check import Check
    from smallwit.recipe.schema import Recipe
    from smallwit.training.problem_stream import TaskProblems


class RejectionSamplingStage(Stage):
    """Let a model answer training problems and keep the answers that the verifier accepts."""

    makes = "rows"
    preload = ("smallwit.stages.rejection_sampling.run",)

    kind: Literal["rejection_sampling"]
    model: str = Field(description="a model of the recipe, or an earlier stage that makes one")
    tasks: list[str] | None = Field(default=None, description="tasks whose problems are answered; all if absent")
    problems: PositiveInt = Field(description="problems of each task, at most")
    flops: PositiveFloat | None = Field(default=None, description="stop before the answers cost more FLOPs than this")
    tokens: PositiveInt | None = Field(
        default=None, description="stop before prompts and answers together have more tokens than this"
    )
    skip: int = Field(default=0, ge=0, description="problems of each training split that are left out, the first drawn")
    order: PartOrder = "drawn"
    samples: PositiveInt = Field(default=1, description="answers to each problem")
    temperature: float = Field(default=0.0, ge=0, description="sampling temperature; 0 is greedy")
    max_new_tokens: PositiveInt = Field(default=256, description="longest answer, in tokens")
    batch: PositiveInt = Field(default=256, description="answers that are written at a time")
    keep: Literal["correct", "all"] = Field(default="correct", description="answers that are kept")

    def inputs(self, recipe: "Recipe") -> list[str]:
        return [self.model]

    def depends_on_seed(self, recipe: "Recipe") -> bool:
        """Return whether answers are sampled, or the model's weights are new."""
        return self.temperature > 0 or super().depends_on_seed(recipe)

    def asked_models(self) -> list[str]:
        return [self.model]

    def tasks_read(self, recipe: "Recipe") -> list[str]:
        return sorted(self.tasks or recipe.tasks)

    def required_tasks(self) -> Iterator[str]:
        yield f"stage '{self.name}' reads their problems"

    def task_needs(self, recipe: "Recipe", place: Place) -> Iterator[TaskNeed]:
        for task in self.tasks or recipe.tasks:
            yield TaskNeed("train", task, self.skip, place)

    def judged_tasks(self, recipe: "Recipe", place: Place) -> Iterator[tuple[str, Place]]:
        for task in self.tasks or recipe.tasks:
            yield task, place

    @property
    def bounded(self) -> bool:
        """Return whether a budget may end the stage before its last problem."""
        return self.flops is not None or self.tokens is not None

    @property
    def declared_flops(self) -> float | None:
        """Return the budget of the stage in FLOPs, if it has one."""
        return self.flops

    def check(self, check: "Check", place: Place) -> None:
        check.model_before("model", self.model, *place, "model", weights=False)
        check.task_names(self.tasks, *place, "tasks")
        if self.flops is not None and check.recipe.is_remote(self.model):
            what = f"'{self.model}' is behind an endpoint, and what its answers cost in FLOPs is not known"
            raise check.refuse(f"{what}; leave flops out, problems and samples bound the stage", *place, "flops")

    def smoke(self) -> Self:
        """Return the stage with a short answer to two problems, all of them kept."""
        few = {"problems": SMOKE_PROBLEMS, "samples": 1, "max_new_tokens": SMOKE_TOKENS, "keep": "all"}
        return self.model_copy(update=few)

    def most_rows(self, job: Job) -> "Sequence[TaskProblems]":
        """Return the problems that are asked, each as often as it is answered."""
        from smallwit.stages.common.inputs import tasks_of
        from smallwit.stages.rejection_sampling.run import asked_problems

        asked = asked_problems(self, tasks_of(job, self.tasks))
        return [replace(each, size=each.size * self.samples) for each in asked]

    def reading(self, job: Job) -> Iterator[str]:
        """Yield lines on the problems that are asked."""
        from smallwit.stages.common.reads import source_lines

        yield from source_lines(f"model {self.model}", self.most_rows(job), "size", None, most=self.bounded)

    def estimate(self, job: Job, known: Known) -> StageEstimate | None:
        """Return what the answers need; of a model behind an endpoint nothing is known."""
        if job.recipe.is_remote(self.model):
            return None
        from smallwit.stages.common.shapes import answers_estimate

        asked = [[each[place] for place in range(each.size)] for each in self.most_rows(job)]
        limit, rows = self.max_new_tokens, self.batch
        return answers_estimate(job, self.model, asked, limit=limit, known=known, rows=rows).at_most(self.flops)

    def run(self, job: Job, reporter: Reporter) -> Info:
        """Publish the accepted answers as a dataset of one file."""
        from smallwit.stages.rejection_sampling.run import run

        return run(self, job, reporter)

    def clean_up(self, work: Path, artifact: Path, key: str) -> None:
        """Remove the journal of replies."""
        (work / f"calls-{key}.jsonl").unlink(missing_ok=True)

    def unfinished(self, work: Path, store: Path) -> dict[str, Unfinished]:
        """Return the journals of replies."""
        found = {path.stem.removeprefix("calls-"): path for path in work.glob("calls-*.jsonl")}
        return {
            key: Unfinished(f"{len(path.read_bytes().splitlines()):,} replies", (path,)) for key, path in found.items()
        }

    def adopt(self, work: Path, store: Path, old: str, new: str) -> None:
        temporary = work / f".calls-{new}.tmp"
        shutil.copyfile(work / f"calls-{old}.jsonl", temporary)
        temporary.rename(work / f"calls-{new}.jsonl")
