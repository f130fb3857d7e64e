"""The folder of a run: who may work in it, and what lies where."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

from smallwit.errors import UserError
from smallwit.pipeline.plan import Node, Plan
from smallwit.storage.artifacts import METRICS, BrokenArtifact, point, read_manifest, remove_leftovers
from smallwit.storage.locks import occupied

FREE_BYTES = 200_000_000
_OWN_LINKS = ("stages/*/artifact", f"stages/*/{METRICS}", "evaluation/*")
_KEPT = ("checkpoints/step_*", "calls-*", "data/journals/*")


class RunFolder:
    """`store/KEY` holds the artifacts; `stages/NN-name` and `evaluation/name` show them in the recipe's own terms."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.store = path / "store"
        self.stages = path / "stages"
        self.evaluation = path / "evaluation"

    @contextmanager
    def occupy(self) -> Iterator[None]:
        """Make the folder and keep other processes out of it. The lock goes with the process, however it ends.

        Raises `UserError` if it cannot be written, is nearly full, holds links, or another process has it.
        """
        with occupied(self.path, f"--run-dir {self.path}"):
            self._refuse_links()
            self.store.mkdir(exist_ok=True)
            free = shutil.disk_usage(self.path).free
            if free < FREE_BYTES:
                raise UserError(f"--run-dir {self.path}: only {free // 10**6} MB are free there; free some space")
            yield

    def _refuse_links(self) -> None:
        """Raises `UserError` for a link that is none of a run's own: what is written or deleted through it is
        elsewhere. The run's folder itself, and those above it, may be links."""
        for link in chain.from_iterable(map(_links, (self.store, self.stages, self.evaluation))):
            if not any(link.relative_to(self.path).match(own) for own in _OWN_LINKS):
                what = "is a symbolic link, and a run's folder holds none but its own"
                raise UserError(f"{link}: {what}; put in its place what it points to, or remove it")

    def artifact(self, node: Node) -> Path:
        """Where a node's artifact is, or will be."""
        return self.store / node.key

    def work(self, node: Node, plan: Plan) -> Path:
        """The stage's own folder, numbered in the order of the recipe."""
        return self.stages / f"{list(plan.nodes).index(node.name):02d}-{node.name}"

    def find(self, plan: Plan, say: Callable[[str], None]) -> dict[str, dict[str, Any]]:
        """The manifests of the artifacts that are there and whole, by node. A damaged one is renamed, which is said."""
        remove_leftovers(self.path)
        remove_leftovers(self.store)
        nodes = [node for node in plan.nodes.values() if self.artifact(node).exists()]
        with ThreadPoolExecutor() as pool:
            checked = list(pool.map(_manifest_or_damage, map(self.artifact, nodes)))
        found = {}
        for node, manifest in zip(nodes, checked, strict=True):
            if isinstance(manifest, dict):
                found[node.name] = manifest
                continue
            folder = self.artifact(node)
            folder.rename(folder.with_name(f"broken-{node.key}-{time.time_ns()}"))
            say(f"{node.name}: its artifact is damaged and will be made again: {manifest}")
        return found

    def tidy(self, plan: Plan) -> None:
        """Number the stages' folders as the recipe does now, and drop what shows stages that it no longer has.

        A folder with checkpoints, or with replies that were paid for, stays: the stage may come back.
        """
        wanted = {node.name: self.work(node, plan) for node in plan.nodes.values() if node.stage.makes != "scores"}
        for folder in sorted(self.stages.glob("*-*")):
            name = folder.name.partition("-")[2]
            if name in wanted and not wanted[name].exists():
                folder.rename(wanted[name])
            elif folder != wanted.get(name) and not any(chain.from_iterable(map(folder.glob, _KEPT))):
                shutil.rmtree(folder)
        for link in self.evaluation.glob("*"):
            if link.is_symlink() and link.name not in plan.measured:
                link.unlink()

    def show(self, node: Node, plan: Plan) -> None:
        """Let the run's folders point to a node's artifact."""
        artifact = self.artifact(node)
        if node.stage.makes == "scores":
            point(self.evaluation / node.stage.name, artifact)
            return
        work = self.work(node, plan)
        point(work / "artifact", artifact)
        if (artifact / METRICS).exists():
            point(work / METRICS, artifact / METRICS)
        node.stage.clean_up(work, artifact, node.key)

    def withdraw_results(self) -> None:
        """Take away the sums of an earlier recipe: what stands in the folder now is not what they were made of."""
        for name in ("results.json", "report.html"):
            (self.path / name).unlink(missing_ok=True)


def _links(top: Path) -> Iterator[Path]:
    """The symbolic links among `top` and what is below it; none is followed."""
    if top.is_symlink():
        yield top
        return
    for folder, folders, files in os.walk(top):
        yield from (path for name in (*folders, *files) if (path := Path(folder, name)).is_symlink())


def _manifest_or_damage(folder: Path) -> dict[str, Any] | BrokenArtifact:
    try:
        return read_manifest(folder, check_content=True)
    except BrokenArtifact as damage:
        return damage
