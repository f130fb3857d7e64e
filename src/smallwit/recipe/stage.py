"""What every kind of stage is: its settings, and what the pipeline asks of it.

A kind is one class: its settings in a recipe, what it reads, what its result depends on, what it costs, what it checks
against the rest of the recipe, its smoke form, and its run. The kinds are in `smallwit.stages`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Self

from pydantic import Field, PositiveInt

from smallwit.recipe.section import Section

if TYPE_CHECKING:
    from smallwit.recipe.check import Check
    from smallwit.recipe.schema import Recipe
    from smallwit.stages.job import Info, Job, Reporter

Place = tuple[str | int, ...]
Makes = Literal["model", "rows", "logprobs", "scores", "tokenizer"]

SMOKE_STEPS = 2
SMOKE_TOKENS = 8
SMOKE_PROBLEMS = 2
SMOKE_GROUP = 4
"""Completions of a prompt in a smoke run. Texts of random weights differ in length, which rewards of two would not."""


class TaskNeed(NamedTuple):
    """What a stage reads of a task: a split, `solutions` or `documents`, behind the first `skip` problems; and where
    the recipe asks for it."""

    what: str
    task: str
    skip: int
    place: Place


class Stage(Section):
    """A stage of a recipe: it reads models and artifacts of earlier stages and makes one artifact."""

    kinds_in = ("smallwit.stages",)
    makes: ClassVar[Makes]
    """What the artifact is. Stages that make a model are measured and can be continued from."""
    standalone: ClassVar[bool] = False
    """Whether the artifact is of use without a trained model: a recipe of such stages alone needs no models."""
    counted: ClassVar[bool] = True
    """Whether the ledger has an entry for the stage."""
    preload: ClassVar[tuple[str, ...]] = ()
    """Modules that the run needs and that take long to import: the pipeline imports them once for all stages."""
    without_effect: ClassVar[frozenset[str]] = frozenset()
    """Settings that do not change the artifact, so that they are not part of its key."""

    kind: str
    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$",
        description="name of the stage: letters, digits, '.', '_' and '-'",
        examples=["sft"],
    )
    threads: PositiveInt | None = Field(
        default=None, description="CPU threads of the stage's process; chosen by the models' sizes if absent"
    )

    # ---- what it reads, and what its artifact depends on

    @property
    def starts_from(self) -> str | None:
        """The model or stage whose weights the stage continues, if it makes a model."""
        return None

    def inputs(self, recipe: "Recipe") -> list[str]:
        """Return the names of the models and stages that the stage reads, each once."""
        return []

    def asked_models(self) -> list[str]:
        """Return the names of the models that the stage asks, besides the one that it trains."""
        return []

    def tasks_read(self, recipe: "Recipe") -> list[str]:
        """Return the names of the tasks whose problems the stage works on."""
        return []

    def validated_tasks(self, recipe: "Recipe") -> list[str]:
        """Return the names of the tasks that the stage is validated on."""
        return []

    def content(self, recipe: "Recipe", base: Path, data_dir: Path | None) -> list[Any]:
        """Return JSON data that changes with what the stage reads beside its settings, inputs and tasks.

        Raises `UserError` for files that are not there.
        """
        return []

    def required_tasks(self) -> Iterator[str]:
        """Yield, in words, what in the stage cannot do without a task."""
        yield from ()

    def task_needs(self, recipe: "Recipe", place: Place) -> Iterator[TaskNeed]:
        """Yield what the stage reads of each task. `place` is that of the stage in the recipe."""
        yield from ()

    def judged_tasks(self, recipe: "Recipe", place: Place) -> Iterator[tuple[str, Place]]:
        """Yield the tasks whose verifiers judge what a model writes, and where the stage asks for it."""
        yield from ()

    def reward_functions(self, recipe: "Recipe") -> Iterator[tuple[str, str]]:
        """Yield pairs of a task and a reward function of the user that pays its rollouts."""
        yield from ()

    # ---- what it costs

    @property
    def declared_flops(self) -> float | None:
        """FLOPs that the stage itself may spend, if the recipe says so."""
        return None

    @property
    def compute_target(self) -> str | None:
        """The stage whose path this one matches in FLOPs."""
        return None

    def charged(self, recipe: "Recipe") -> list[str]:
        """Return the names of the models and stages whose cost counts toward this stage's product."""
        return []

    @property
    def process_count(self) -> int:
        """Processes that run the stage together."""
        return 1

    # ---- checks

    def check(self, check: "Check", place: Place) -> None:
        """Check the stage against the rest of the recipe. Raises `UserError` with file and line."""

    def check_machine(self, check: "Check", place: Place, ask_hub: bool) -> None:
        """Check that this machine has the packages, devices and files that the stage needs. Raises `UserError`."""

    # ---- its work

    def smoke(self) -> Self:
        """Return the stage as a smoke run has it: a few real steps on a few problems."""
        return self

    def run(self, job: "Job", reporter: "Reporter") -> "Info":
        """Do the work, publish the artifact in `job.folder`, and return what it cost.

        Raises `UserError` for what the user can mend, `Failed` where it cannot be finished, `Stopped` on request.
        """
        raise NotImplementedError

    def clean_up(self, work: Path, artifact: Path, key: str) -> None:
        """Remove what only led to the artifact, which is published. A process killed just after that leaves it."""

    # ---- how it is measured

    def validated_on(self, recipe: "Recipe") -> object:
        """Return what the model is validated on during the stage; equal for stages whose scores can be compared."""
        return None

    def validation_score(self, artifact: Path) -> float | None:
        """Return the validation score of the weights in the artifact, if the stage was validated."""
        return None

    @property
    def published_dtype(self) -> str | None:
        """Number format of the published weights, where the stage chooses it."""
        return None
