"""The base class of stage kinds: settings, and the interface to the pipeline.

A kind is one class: its settings in a recipe, its inputs, its identity, its declared cost, its checks against the rest
of the recipe, its smoke form, and its run. The kinds are in `smallwit.stages`.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Self

from pydantic import Field, PositiveInt

from smallwit.recipe.section import Section

if TYPE_CHECKING:
    from smallwit.recipe.check import Check
    from smallwit.recipe.schema import Recipe
    from smallwit.stages.estimate import Known, StageEstimate
    from smallwit.stages.job import Info, Job, Reporter
    from smallwit.training.problem_stream import TaskProblems

Place = tuple[str | int, ...]
Makes = Literal["model", "rows", "logprobs", "scores", "tokenizer"]

SMOKE_STEPS = 2
SMOKE_TOKENS = 8
SMOKE_PROBLEMS = 2
SMOKE_GROUP = 4
"""Completions of a prompt in a smoke run. With more than two of them rewards (of length) differ."""


class TaskNeed(NamedTuple):
    """The part of a task that a stage reads: a split, `solutions` or `documents`, after the first `skip` problems.

    `place` is the key of the recipe that needs it.
    """

    what: str
    task: str
    skip: int
    place: Place


class Unfinished(NamedTuple):
    """What an attempt that has not ended left: a phrase, as `a checkpoint at step 12`, and its files and folders."""

    what: str
    paths: tuple[Path, ...]


class Stage(Section):
    """A stage of a recipe: it reads models and artifacts of earlier stages and makes one artifact."""

    kinds_in = ("smallwit.stages",)
    makes: ClassVar[Makes]
    """The type of the artifact. Models are measured, and other stages can start from them."""
    standalone: ClassVar[bool] = False
    """Whether the artifact is useful without a model: a recipe with only such stages needs no models."""
    counted: ClassVar[bool] = True
    """Whether the ledger has an entry for the stage."""
    saves: ClassVar[bool] = True
    """Whether the run, asked to stop, saves what it has done; if not, its process is ended at once."""
    preload: ClassVar[tuple[str, ...]] = ()
    """Modules that the run needs and that take long to import: the pipeline imports them once for all stages."""
    without_effect: ClassVar[frozenset[str]] = frozenset()
    """Settings that do not change the artifact, so that they are not part of its key."""
    adoptable: ClassVar[tuple[str, ...] | None] = None
    """Beginnings of the key's parts that may change where work is adopted; `None` is all that keeps models' shapes."""

    kind: str
    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$",
        description="name of the stage: letters, digits, '.', '_' and '-'",
        examples=["sft"],
    )
    threads: PositiveInt | None = Field(
        default=None, description="CPU threads of the stage's process; chosen by the models' sizes if absent"
    )

    # ---- inputs and identity

    @property
    def starts_from(self) -> str | None:
        """Return the model or stage whose weights the stage continues, if it makes a model."""
        return None

    def inputs(self, recipe: "Recipe") -> list[str]:
        """Return the names of the models and stages that the stage reads, each once."""
        return []

    def depends_on_seed(self, recipe: "Recipe") -> bool:
        """Return whether the stage itself depends on the seed: it trains, samples, or reads new weights."""
        return any(recipe.models[name].new is not None for name in self.inputs(recipe) if name in recipe.models)

    def asked_models(self) -> list[str]:
        """Return the names of the teachers and generators of the stage, without the model that it trains."""
        return []

    def tasks_read(self, recipe: "Recipe") -> list[str]:
        """Return the names of the tasks whose problems the stage reads."""
        return []

    def validated_tasks(self, recipe: "Recipe") -> list[str]:
        """Return the names of the tasks that the stage is validated on."""
        return []

    def content(self, recipe: "Recipe", base: Path, data_dir: Path | None) -> dict[str, Any]:
        """Return JSON data for the key, by name: hashes of all other files and settings that the stage reads.

        Raises `UserError` for missing files.
        """
        return {}

    def required_tasks(self) -> Iterator[str]:
        """Yield a phrase for each part of the stage that needs a task."""
        yield from ()

    def task_needs(self, recipe: "Recipe", place: Place) -> Iterator[TaskNeed]:
        """Yield the parts of tasks that the stage reads. `place` is that of the stage in the recipe."""
        yield from ()

    def judged_tasks(self, recipe: "Recipe", place: Place) -> Iterator[tuple[str, Place]]:
        """Yield the tasks whose verifiers grade a model's text, and the place in the recipe that needs them."""
        yield from ()

    def reward_functions(self, recipe: "Recipe") -> Iterator[tuple[str, str]]:
        """Yield pairs of a task and a reward function of the user for its rollouts."""
        yield from ()

    # ---- cost

    @property
    def declared_flops(self) -> float | None:
        """Return the FLOPs that the stage itself may spend, if the recipe sets them."""
        return None

    @property
    def compute_target(self) -> str | None:
        """Return the stage whose path this one matches in FLOPs."""
        return None

    def charged(self, recipe: "Recipe") -> list[str]:
        """Return the names of the models and stages whose cost is added to that of this stage."""
        return []

    def groups(self) -> dict[str, int]:
        """Return the completions of each problem, by source, where rewards are compared within them."""
        return {}

    @property
    def process_count(self) -> int:
        """Return the number of processes that run the stage together."""
        return 1

    # ---- checks

    def check(self, check: "Check", place: Place) -> None:
        """Check the stage against the rest of the recipe. Raises `UserError` with file and line."""

    def check_machine(self, check: "Check", place: Place, ask_hub: bool) -> None:
        """Check that this machine has the packages, devices and files that the stage needs. Raises `UserError`."""

    # ---- run

    def reading(self, job: "Job") -> Iterator[str]:
        """Yield lines on what the stage is going to read, before anything runs."""
        yield from ()

    def estimate(self, job: "Job", known: "Known") -> "StageEstimate | None":
        """Return what the stage is going to need, `None` if that is not known; `known` was measured before."""
        return None

    def most_rows(self, job: "Job") -> "Sequence[TaskProblems] | None":
        """Return the problems of the rows that the stage makes, as many as there can be; `None` if that is unknown."""
        return None

    def smoke(self) -> Self:
        """Return the stage for a smoke run: a few real steps on a few problems."""
        return self

    def run(self, job: "Job", reporter: "Reporter") -> "Info":
        """Run the stage, publish the artifact in `job.folder`, and return its cost.

        Raises `UserError` for what the user can fix, `Failed` if the stage cannot be finished, `Stopped` on request.
        """
        raise NotImplementedError

    def clean_up(self, work: Path, artifact: Path, key: str) -> None:
        """Remove temporary files of `key` after its artifact is published; a process that is killed leaves them."""

    def unfinished(self, work: Path, store: Path) -> dict[str, "Unfinished"]:
        """Return what attempts that have not ended left in `work` and in `store`, by key."""
        return {}

    def adopt(self, work: Path, store: Path, old: str, new: str) -> None:
        """Copy unfinished work of the key `old` so that it is work of the key `new`.

        Raises `UserError` if it cannot be gone on from.
        """
        raise NotImplementedError

    # ---- validation

    def validated_on(self, recipe: "Recipe") -> object:
        """Return the validation problems of the stage; equal for stages whose scores can be compared."""
        return None

    def validation_score(self, artifact: Path) -> float | None:
        """Return the validation score of the weights in the artifact, if the stage was validated."""
        return None

    @property
    def published_dtype(self) -> str | None:
        """Return the number format of the published weights, if the stage chooses it."""
        return None
