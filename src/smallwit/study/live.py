"""The table of a study while it runs: a row an arm, with the seeds that are done and their scores so far."""

import json
from statistics import fmean

from rich import box
from rich.table import Table
from rich.text import Text

from smallwit.console.numbers import percent
from smallwit.pipeline.plan import Node
from smallwit.pipeline.scheduler import Scheduler
from smallwit.pipeline.seeds import seeded_name
from smallwit.study.expand import ExpandedStudy


class LiveTable:
    """Makes the table of a study from the artifacts that its scheduler knows."""

    def __init__(self, expanded: ExpandedStudy) -> None:
        self.expanded = expanded
        self._scores: dict[str, float] = {}
        """Scores of the evaluations so far, by key."""

    def __call__(self, scheduler: Scheduler) -> Table:
        """Return the table of what is done now."""
        recipe = self.expanded.recipe
        seeds = range(recipe.seed, recipe.seed + recipe.seeds)
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 2, 0, 0), pad_edge=False, show_edge=False)
        for head in ("pipeline", "stages", *(f"seed {seed}" for seed in seeds), "mean, %"):
            table.add_column(Text(head), justify="left" if head == "pipeline" else "right")
        for arm in self.expanded.arms:
            stages = [stage.name for stage in self.expanded.own_stages(arm)]
            nodes = {node.name for name in stages for seed in seeds if (node := scheduler.plan.node(name, seed))}
            measured = [scheduler.plan.nodes[f"evaluate {seeded_name(arm.end, seed, recipe)}"] for seed in seeds]
            scores = [self._score(node, scheduler) if node.name in scheduler.manifests else None for node in measured]
            known = [score for score in scores if score is not None]
            done = f"{len(nodes & scheduler.manifests.keys())} of {len(nodes)}"
            mean = percent(fmean(known) if known else None)
            table.add_row(*map(Text, (arm.name, done, *map(percent, scores), mean)))
        return table

    def _score(self, node: Node, scheduler: Scheduler) -> float:
        """Return the mean score of an evaluation over its samples; NaN if none of them has a verdict."""
        if node.key not in self._scores:
            files = sorted(scheduler.folder.artifact(node).glob("*.jsonl"))
            rows = (json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines())
            known = [row["score"] for row in rows if row["score"] is not None]
            self._scores[node.key] = fmean(known) if known else float("nan")
        return self._scores[node.key]
