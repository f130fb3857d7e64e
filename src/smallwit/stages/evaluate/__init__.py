"""The stage that measures one model by the recipe's protocol. The pipeline adds it for each measured model."""

import json
import shutil
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smallwit.recipe.stage import Stage, Unfinished
from smallwit.stages.estimate import Known, StageEstimate
from smallwit.stages.job import Info, Job, Reporter

if TYPE_CHECKING:
    from smallwit.recipe.schema import Recipe


PARTIAL = "partial-"
"""The beginning of the names of folders that hold the samples of an evaluation until it has ended."""


class EvaluateStage(Stage):
    """Measure the model or stage `name` on every task of the recipe's protocol."""

    makes = "scores"
    preload = ("smallwit.stages.evaluate.run",)
    counted = False

    adoptable = ("code", "libraries.", "device")

    kind: str = "evaluate"

    def inputs(self, recipe: "Recipe") -> list[str]:
        return [self.name]

    def depends_on_seed(self, recipe: "Recipe") -> bool:
        """Return whether responses are sampled, or the weights are new."""
        return recipe.evaluation.temperature > 0 or super().depends_on_seed(recipe)

    def tasks_read(self, recipe: "Recipe") -> list[str]:
        return recipe.evaluation.tasks or list(recipe.tasks)

    def content(self, recipe: "Recipe", base: Any, data_dir: Any) -> dict[str, Any]:
        """Return the protocol's settings."""
        return {"evaluation": recipe.evaluation.model_dump(mode="json", exclude={"stages"})}

    def unfinished(self, work: Path, store: Path) -> dict[str, Unfinished]:
        """Return the samples of the model by key."""
        found = {}
        for folder in store.glob(f"{PARTIAL}*"):
            with suppress(OSError, ValueError, KeyError, TypeError):
                if json.loads((folder / "protocol.json").read_bytes())["model"]["reference"] == self.name:
                    count = sum(file.read_bytes().count(b"\n") for file in folder.glob("*.jsonl"))
                    found[folder.name.removeprefix(PARTIAL)] = Unfinished(f"{count:,} samples", (folder,))
        return found

    def adopt(self, work: Path, store: Path, old: str, new: str) -> None:
        target = store / f"{PARTIAL}{new}"
        temporary = store / f".{target.name}.tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.copytree(store / f"{PARTIAL}{old}", temporary)
        about = json.loads((temporary / "protocol.json").read_bytes())
        about["model"]["identity"] = new
        (temporary / "protocol.json").write_text(json.dumps(about, indent=1, ensure_ascii=False), encoding="utf-8")
        temporary.rename(target)

    def estimate(self, job: Job, known: Known) -> StageEstimate:
        """Return what the responses need."""
        from smallwit.evaluation.suite import problems_of
        from smallwit.stages.common.inputs import tasks_of
        from smallwit.stages.common.shapes import answers_estimate

        spec = job.recipe.evaluation
        problems = [problems_of(task, spec.split, spec.problems, spec.order) for task in tasks_of(job, spec.tasks)]
        return answers_estimate(job, self.name, problems, limit=spec.max_new_tokens, known=known, rows=spec.batch)

    def run(self, job: Job, reporter: Reporter) -> Info:
        """Publish one file of samples a task, and the protocols."""
        from smallwit.stages.evaluate.run import run

        return run(job, reporter)
