"""Work of other keys: say what changed since, use or continue it where `--adopt` asks, else leave it where it is."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from smallwit.errors import UserError
from smallwit.pipeline.key_records import KeyRecord, changes, record_of_artifact
from smallwit.pipeline.plan import Node, Plan
from smallwit.pipeline.run_folder import RunFolder
from smallwit.recipe.stage import Unfinished
from smallwit.storage.artifacts import BrokenArtifact, link_files, publish, read_manifest
from smallwit.suggestions import hint

ALL = "all"
_ARTIFACT = "an artifact"
_NO_EFFECT = frozenset(("smallwit", "cores"))
"""Entries of `made_with` that change no bit: the code is part of the key, and threads are what sums depend on."""
_SHOWN = 8
Manifests = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class OtherWork:
    """Work of a node's name with another key: what it is, and what changed since, by part of the key."""

    record: KeyRecord
    what: str
    changed: Mapping[str, str]

    def told(self) -> str:
        """Return the changes in one line."""
        texts = list(self.changed.values())
        more = [f"and {len(texts) - _SHOWN} more"] if len(texts) > _SHOWN else []
        return "; ".join([*texts[:_SHOWN], *more])


class Adoption:
    """Decides about a run's unfinished work and its work of other keys before anything is computed.

    `names` are nodes whose work of another key is used or continued, or `all`; a stage's name includes its evaluation.
    With `exact` unfinished work that was made with other threads or versions is refused. `records` has the record of
    each node that is to be computed.
    """

    def __init__(
        self, plan: Plan, folder: RunFolder, names: Sequence[str], exact: bool, say: Callable[[str], None]
    ) -> None:
        unknown = [name for name in names if name != ALL and name not in plan.nodes]
        if unknown:
            raise UserError(f"--adopt {unknown[0]}: the recipe has no such stage; {hint(unknown[0], [*plan.nodes])}")
        self.plan, self.folder, self.names, self.exact, self.say = plan, folder, names, exact, say
        self.records: dict[str, KeyRecord] = {}

    def settle(self, waiting: Sequence[Node], manifests: dict[str, dict[str, Any]]) -> None:
        """Decide about the nodes in `waiting`. Adopted artifacts are added to `manifests`.

        Raises `UserError` for work that may not be adopted, or that `exact` refuses.
        """
        artifacts = [(path, record_of_artifact(path)) for path in self.folder.store.glob("[!.]*") if path.is_dir()]
        known = [record for path, record in artifacts if record is not None and record.key == path.name]
        following = []
        for node in waiting:
            own, others = self._work(node, known)
            record = self.folder.keys.read(node.key) or node.record
            if own is None:
                record = replace(record, made_with=(), adopted=None)
            else:
                self._compare(node, own, record)
            chosen = self._chosen(node, own, others, manifests)
            if chosen is not None:
                record = self._adopt(node, record, chosen, manifests)
            elif others and own is None:
                if others[0].changed.keys() <= {
                    f"inputs.{each.name}" for each in waiting if each.name not in manifests
                }:
                    following.append(node.name)
                else:
                    self._tell(node, others[0])
            self.records[node.name] = record.with_attempt(node.made_with)
        if following:
            why = "because what is read is made again; what was made before of another key stays"
            self.say(f"{', '.join(following)}: computed again, {why}")

    def begin(self, node: Node) -> KeyRecord:
        """Keep the record of a node that begins to be computed, and return it."""
        record = self.records[node.name]
        self.folder.keys.write(record)
        return record

    def _work(self, node: Node, artifacts: Sequence[KeyRecord]) -> tuple[Unfinished | None, list[OtherWork]]:
        """Return the node's own unfinished work, and its work of other keys: artifacts first, the newest first."""
        unfinished = node.stage.unfinished(self.folder.work(node, self.plan), self.folder.store)
        own = unfinished.pop(node.key, None)
        found = [(_time(self.folder.store / one.key), one, _ARTIFACT) for one in artifacts if one.node == node.name]
        records = {key: self.folder.keys.read(key) for key in unfinished}
        partial = [(_time(work.paths[0]), records[key], work.what) for key, work in unfinished.items()]
        ordered = [*_newest_first(found), *_newest_first(partial)]
        current = node.record.with_attempt(node.made_with)
        others = [
            OtherWork(record, what, changes(record, current))
            for _, record, what in ordered
            if record is not None and record.node == node.name and record.key != node.key
        ]
        return own, others

    def _compare(self, node: Node, own: Unfinished, record: KeyRecord) -> None:
        """Say with which threads and versions unfinished work was made, if with others. With `exact` refuse it."""
        before: Mapping[str, Any] = record.made_with[-1] if record.made_with else node.made_with
        differing = [
            f"{name} {before.get(name)} → {now}"
            for name, now in node.made_with.items()
            if before.get(name) != now and name not in _NO_EFFECT
        ]
        if not differing:
            return
        what = f"{own.what} was made with other versions or threads ({'; '.join(differing)})"
        if self.exact:
            raise UserError(f"stage {node.name}: {what}, and --exact refuses that; take the same, or leave out --exact")
        self.say(f"{node.name}: {what}; it goes on from there, and bits may differ from here on")

    def _chosen(
        self,
        node: Node,
        own: Unfinished | None,
        others: Sequence[OtherWork],
        manifests: Mapping[str, Mapping[str, Any]],
    ) -> OtherWork | None:
        """Return the work that is to be adopted, if any. Raises `UserError` if a named stage has none that may be."""
        named = node.name in self.names
        if not (named or ALL in self.names or node.name.removeprefix("evaluate ") in self.names):
            return None
        possible = [other for other in others if own is None or other.what == _ARTIFACT]
        refused = ""
        for other in possible:
            reason = self._objection(node, other, manifests)
            if reason is None:
                return other
            refused = refused or f"{other.what} of the key {other.record.key} cannot be adopted: {reason}"
        if refused and named:
            raise UserError(f"--adopt {node.name}: {refused}; leave it out to compute the stage again")
        if refused:
            self.say(f"{node.name}: {refused}; it is computed again")
        return None

    def _objection(self, node: Node, other: OtherWork, manifests: Manifests) -> str | None:
        """Return why work may not be adopted, or `None`: models of another shape, or scores of another model."""
        changed = {part: text for part, text in other.changed.items() if not _adopted_input(part, other, manifests)}
        allowed = node.stage.adoptable
        if allowed is not None:
            against = [text for part, text in changed.items() if not part.startswith(allowed)]
        elif node.stage.makes in ("model", "tokenizer"):
            against = [text for part, text in changed.items() if _is_shape(part)]
        else:
            against = []
        return "; ".join(against[:_SHOWN]) or None

    def _adopt(
        self, node: Node, record: KeyRecord, other: OtherWork, manifests: dict[str, dict[str, Any]]
    ) -> KeyRecord:
        origin = (other.record.adopted or {}).get("origin", other.record.key)
        changed = list(other.changed.values())
        adopted = {"from": other.record.key, "origin": origin, "what": other.what, "changed": changed}
        self.say(f"{node.name}: {other.what} of another key is adopted: {other.told()}")
        if other.what == _ARTIFACT:
            manifests[node.name] = self._adopt_artifact(node, adopted)
            return record
        record = replace(record, made_with=other.record.made_with, adopted=adopted)
        # First: work that is adopted without a record of it would pass for the node's own.
        self.folder.keys.write(record)
        work = self.folder.work(node, self.plan)
        node.stage.adopt(work, self.folder.store, other.record.key, node.key)
        self._compare(node, Unfinished(other.what, ()), record)
        return record

    def _adopt_artifact(self, node: Node, adopted: Mapping[str, Any]) -> dict[str, Any]:
        source, target = self.folder.store / adopted["from"], self.folder.artifact(node)
        try:
            manifest = read_manifest(source, check_content=True)
        except BrokenArtifact as error:
            raise UserError(f"--adopt: the artifact of {node.name} is damaged ({error}); leave it out") from error
        about = {name: value for name, value in manifest.items() if name not in ("files", "sum")}
        about |= {"key": node.key, "adopted": adopted}
        publish(target, lambda folder: link_files(source, folder), about)
        return read_manifest(target, check_content=False)

    def _tell(self, node: Node, other: OtherWork) -> None:
        done = "uses" if other.what == _ARTIFACT else "goes on from"
        name = f"'{node.name}'" if " " in node.name else node.name
        advice = f"--adopt {name} {done} it, smallwit gc {self.folder.path} lists it"
        self.say(f"{node.name}: {other.what} is of another key: {other.told()}; computed again, it stays ({advice})")


def _adopted_input(part: str, other: OtherWork, manifests: Manifests) -> bool:
    """Return whether a part is an input whose artifact was adopted from the one that the other work has read."""
    section, _, name = part.partition(".")
    adopted = manifests.get(name, {}).get("adopted") if section == "inputs" else None
    return adopted is not None and other.record.parts.get(part) in (adopted["from"], adopted["origin"])


def _is_shape(part: str) -> bool:
    """Return whether a part of a key decides about the shapes of a model's weights."""
    return part.startswith("tokenizer.") or part == "inputs.tokenizer" or ".weights.new" in part


def _time(path: Path) -> float:
    return path.stat().st_mtime if path.exists() else 0.0


def _newest_first(found: list[tuple[float, Any, str]]) -> list[tuple[float, Any, str]]:
    return sorted(found, key=lambda one: -one[0])
