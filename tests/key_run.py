"""A run folder with keys and work that no stage has really made: what is decided about it needs no training."""

from pathlib import Path
from typing import Any

import pipeline_recipes as micro
from smallwit.pipeline.adoption import Adoption
from smallwit.pipeline.plan import Plan, make_plan
from smallwit.pipeline.run_folder import RunFolder
from smallwit.storage.artifacts import publish

LEARNING_RATE = "stages.sft.optimizer.lr=0.5"


class Run:
    """A run folder with the short recipe, whose work is published by hand."""

    def __init__(self, path: Path) -> None:
        self.recipe = micro.write(path, micro.SHORT)
        self.folder = RunFolder(path / "run")
        self.folder.store.mkdir(parents=True)
        self.said: list[str] = []

    def plan(self, *overrides: str, threads: int = 1) -> Plan:
        recipe = micro.read(self.recipe, *overrides)
        base = self.recipe.parent
        return make_plan(recipe, base=base, data_dir=None, device="cpu", dtype="float32", threads=threads)

    def publish(self, plan: Plan, *names: str) -> None:
        """Publish artifacts of these nodes."""
        for name in names:
            node = plan.nodes[name]
            about = {"name": node.stage.name} | node.record.with_attempt(node.made_with).manifest()
            publish(self.folder.artifact(node), lambda folder: (folder / "file").write_text("content"), about)  # type: ignore[arg-type,func-returns-value]

    def begin_sft(self, plan: Plan, step: int = 12) -> Path:
        """Save a checkpoint of sft."""
        node = plan.nodes["sft"]
        self.folder.keys.write(node.record.with_attempt(node.made_with))
        place = self.folder.work(node, plan) / "checkpoints" / f"step_{step:08d}"
        publish(place, lambda folder: (folder / "state.json").write_text("{}"), {"key": node.key, "step": step})  # type: ignore[arg-type,func-returns-value]
        return place

    def settle(self, plan: Plan, *adopt: str, exact: bool = False) -> dict[str, dict[str, Any]]:
        """Decide about all nodes; the manifests that there are then."""
        self.said.clear()
        manifests = self.folder.find(plan, self.said.append)
        self.adoption = Adoption(plan, self.folder, adopt, exact, self.said.append)
        self.adoption.settle([node for name, node in plan.nodes.items() if name not in manifests], manifests)
        return manifests
