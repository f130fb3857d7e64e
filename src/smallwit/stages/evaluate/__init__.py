"""The stage that measures one model by the recipe's protocol. The pipeline adds it for each measured model."""

from typing import TYPE_CHECKING, Any

from smallwit.recipe.stage import Stage
from smallwit.stages.job import Info, Job, Reporter

if TYPE_CHECKING:
    from smallwit.recipe.schema import Recipe


class EvaluateStage(Stage):
    """Measure the model or stage `name` on every task of the recipe's protocol."""

    makes = "scores"
    preload = ("smallwit.stages.evaluate.run",)
    counted = False

    kind: str = "evaluate"

    def inputs(self, recipe: "Recipe") -> list[str]:
        return [self.name]

    def depends_on_seed(self, recipe: "Recipe") -> bool:
        """Return whether responses are sampled, or the weights are new."""
        return recipe.evaluation.temperature > 0 or super().depends_on_seed(recipe)

    def tasks_read(self, recipe: "Recipe") -> list[str]:
        return recipe.evaluation.tasks or list(recipe.tasks)

    def content(self, recipe: "Recipe", base: Any, data_dir: Any) -> list[Any]:
        """Return the protocol's settings."""
        return [recipe.evaluation.model_dump(mode="json", exclude={"stages"})]

    def run(self, job: Job, reporter: Reporter) -> Info:
        """Publish one file of samples a task, and the protocols."""
        from smallwit.stages.evaluate.run import run

        return run(job, reporter)
