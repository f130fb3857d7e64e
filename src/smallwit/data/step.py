"""The base of the steps of a `dataset` stage."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from smallwit.recipe.section import Section
from smallwit.rows import Row

if TYPE_CHECKING:
    from smallwit.data.context import StepContext
    from smallwit.recipe.check import Check
    from smallwit.recipe.stage import Place
    from smallwit.tasks import Task


class DataStep(Section):
    """One step of a dataset's construction: its settings, its checks, its smoke form and its work.

    A subclass with a field `kind: Literal["..."]`, in a module of `smallwit.data.steps`, is a step that recipes can
    name. Reading a recipe imports all of these modules, so heavy libraries are imported inside `rows`.
    """

    kinds_in: ClassVar[tuple[str, ...]] = ("smallwit.data.steps",)

    @property
    def name(self) -> str:
        """Return the step's name in files, messages and the card."""
        return str(self.kind)  # type: ignore[attr-defined]

    @property
    def models(self) -> Sequence[str]:
        """Return the names of the models and train stages that the step generates with."""
        return ()

    @property
    def stages(self) -> Sequence[str]:
        """Return the names of the earlier stages whose rows the step reads."""
        return ()

    @property
    def uses_verifiers(self) -> bool:
        """Return whether the step calls the verifiers of the rows' tasks."""
        return False

    @property
    def depends_on_seed(self) -> bool:
        """Return whether the step draws with the run's seed."""
        return False

    @property
    def counts_tokens(self) -> bool:
        """Return whether the stage needs a tokenizer."""
        return False

    def task_splits(self) -> "Iterator[tuple[str, str, Place]]":
        """Yield the task, the split and the place below the step of every split of a task that the step reads."""
        yield from ()

    def tasks_of_rows(self, known: Sequence[str]) -> Sequence[str]:
        """Return which of the recipe's tasks (`known`) the rows made by this step may belong to."""
        return ()

    def check_references(self, check: "Check", place: "Place") -> None:
        """Check the models, stages, tasks and files that the step names. `place` is where the step is in the recipe.

        Raises `UserError`, with the line, for a name that does not exist.
        """
        for name in self.models:
            check.model_before("model", name, *place, weights=False)

    def smoke(self, problems: int, max_new_tokens: int) -> "Self | None":
        """Return the step for a smoke run: `problems` rows a source, short replies. `None` leaves the step out."""
        return self

    def content(self, tasks: "Mapping[str, Task]", base: Path, data_dir: Path | None) -> dict[str, Any]:
        """Return hashes of what the step reads beside its rows, by name: they are part of the stage's key.

        Raises `UserError` for a file or an evaluation suite that does not exist.
        """
        return {}

    def rows(self, rows: Iterator[Row], context: "StepContext") -> Iterator[Row]:
        """Yield the rows that the step keeps or makes, in an order that depends on its input alone.

        Reads `rows` as a stream and holds as little of them as possible (hashes, not texts). Calls `context.drop` for
        every row that is not passed on. What must survive a killed build goes to `context.journal`.
        """
        raise NotImplementedError
