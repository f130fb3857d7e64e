"""The folder of a run: its lock, its layout and its artifacts."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

from smallwit.errors import UserError
from smallwit.pipeline.key_records import KeyRecords
from smallwit.pipeline.plan import Node, Plan
from smallwit.storage.artifacts import (
    METRICS,
    BrokenArtifact,
    make_link,
    open_own,
    read_manifest,
    read_sealed,
    remove_leftovers,
    write_sealed,
)
from smallwit.storage.locks import FolderLock, locked, occupied

FREE_BYTES = 200_000_000
PLAN = "plan.json"
_OWN_LINKS = ("stages/*/artifact", f"stages/*/{METRICS}", "evaluation/*")
_KEPT = ("checkpoints/step_*", "checkpoints/*/step_*", "shards/*", "calls-*", "data/journals/*")


class RunFolder:
    """The folder of a run: artifacts in `store/KEY`, links to them in `stages/NN-name` and `evaluation/name`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.store = path / "store"
        self.stages = path / "stages"
        self.evaluation = path / "evaluation"
        self.keys = KeyRecords(path / "keys")
        self.lock: FolderLock | None = None
        self.shared = False
        self._claims: dict[str, BinaryIO] = {}

    @property
    def first(self) -> bool:
        """Return whether no other process was at work in the folder when this one began."""
        return self.lock is None or self.lock.first

    @contextmanager
    def occupy(self, shared: bool = False) -> Iterator[None]:
        """Create the folder and lock it against other processes. The lock ends with the process.

        With `shared` several processes compute one plan: each node is locked by the one that computes it.

        Raises `UserError` if the folder cannot be written, its disk is nearly full, it holds foreign links, or another
        process has the lock.
        """
        with occupied(self.path, f"--run-dir {self.path}", shared) as self.lock:
            self.shared = shared
            self._refuse_links()
            self.store.mkdir(exist_ok=True)
            free = shutil.disk_usage(self.path).free
            if free < FREE_BYTES:
                raise UserError(f"--run-dir {self.path}: only {free // 10**6} MB are free there; free some space")
            yield

    def _refuse_links(self) -> None:
        """Raise `UserError` for a symbolic link that the run did not make: writing through it changes files elsewhere.

        The run's folder itself, and the folders above it, may be links.
        """
        for link in chain.from_iterable(map(_links, (self.store, self.stages, self.evaluation))):
            if not any(link.relative_to(self.path).match(own) for own in _OWN_LINKS):
                what = "is a symbolic link that this run did not make"
                raise UserError(f"{link}: {what}; replace it by what it points to, or remove it")

    def share(self) -> None:
        """Let other processes in, if the folder is shared."""
        if self.shared and self.lock is not None:
            self.lock.share()

    def take(self) -> None:
        """Wait until no other process is at work in a shared folder."""
        if self.shared and self.lock is not None:
            self.lock.take()

    def claim(self, node: Node) -> bool:
        """Lock a node of a shared folder, and return whether this process may compute it."""
        if not self.shared:
            return True
        file = self._claims.get(node.key)
        if file is None:
            (self.path / "locks").mkdir(exist_ok=True)
            file = self._claims[node.key] = open_own(self.path / "locks" / node.key)
        # Another process may have computed it since this one looked.
        return locked(file) and not self.artifact(node).exists()

    def release(self, node: Node) -> None:
        """Unlock a node."""
        if node.key in self._claims:
            self._claims.pop(node.key).close()

    def artifact(self, node: Node) -> Path:
        """Return the folder of a node's artifact, which may not exist yet."""
        return self.store / node.key

    def work(self, node: Node, plan: Plan) -> Path:
        """Return the stage's own folder, numbered in the order of the recipe."""
        return self.stages / f"{list(plan.nodes).index(node.name):02d}-{node.name}"

    def write_plan(self, plan: Plan) -> None:
        """Write `plan.json`: the keys that the present recipe names, for `smallwit gc` and for further processes.

        Raises `UserError` if a process that was first has another plan.
        """
        nodes = {name: {"key": node.key, "folder": self.work(node, plan).name} for name, node in plan.nodes.items()}
        if self.first:
            write_sealed(self.path / PLAN, {"nodes": nodes})
        elif read_sealed(self.path / PLAN)["nodes"] != nodes:
            what = "another smallwit is at work there, and its file or its code differs"
            raise UserError(f"--run-dir {self.path}: {what}; give both the same, or wait for it")

    def find(self, plan: Plan, say: Callable[[str], None]) -> dict[str, dict[str, Any]]:
        """Return the manifests of the undamaged artifacts by node. A damaged one is renamed and reported."""
        if self.first:
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
            say(f"{node.name}: its artifact is damaged and will be computed again: {manifest}")
        return found

    def tidy(self, plan: Plan) -> None:
        """Number the stages' folders by the present recipe, and delete folders and links of stages that it lacks.

        A folder with unfinished work, or with replies of an endpoint, stays: the stage may come back.
        """
        wanted = {node.name: self.work(node, plan) for node in plan.nodes.values() if node.stage.makes != "scores"}
        for folder in sorted(self.stages.glob("*-*")):
            name = folder.name.partition("-")[2]
            if name in wanted and not wanted[name].exists():
                folder.rename(wanted[name])
            elif folder != wanted.get(name) and not any(chain.from_iterable(map(folder.glob, _KEPT))):
                shutil.rmtree(folder)
        for link in self.evaluation.glob("*"):
            if link.is_symlink() and link.name not in plan.evaluations:
                link.unlink()

    def show(self, node: Node, plan: Plan) -> None:
        """Link a node's artifact into the stages' and evaluations' folders."""
        artifact = self.artifact(node)
        if node.stage.makes == "scores":
            make_link(self.evaluation / node.label, artifact)
            return
        work = self.work(node, plan)
        make_link(work / "artifact", artifact)
        if (artifact / METRICS).exists():
            make_link(work / METRICS, artifact / METRICS)
        node.stage.clean_up(work, artifact, node.key)

    def delete_stale_results(self) -> None:
        """Delete results.json and report.html of an earlier run: they do not describe the present artifacts."""
        for name in ("results.json", "report.html"):
            (self.path / name).unlink(missing_ok=True)


def _links(top: Path) -> Iterator[Path]:
    """Yield the symbolic links at and below `top`; none is followed."""
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
