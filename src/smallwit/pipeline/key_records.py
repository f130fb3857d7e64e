"""The parts of keys by name, kept in a run's folder, and what changed between two keys."""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from smallwit.storage.artifacts import BrokenArtifact, read_manifest, read_sealed, write_sealed

Parts = Mapping[str, Any]
"""The parts of a key: JSON values by dotted name, as `stages.sft.optimizer.lr`."""
_HASH = re.compile(r'"[0-9a-f]{16,64}"')
_SHOWN = 40


@dataclass(frozen=True)
class KeyRecord:
    """A key of a node, its parts, and what is not part of it: the versions and threads of each attempt that differed.

    `adopted` tells which work of another key is used or continued: its key as `from`, `what` it is, what has `changed`,
    and the `origin`, which is the first key where work was adopted several times.
    """

    node: str
    key: str
    parts: Parts
    made_with: tuple[Mapping[str, Any], ...] = ()
    adopted: Mapping[str, Any] | None = None

    def with_attempt(self, made_with: Mapping[str, Any]) -> "KeyRecord":
        """Return the record with an attempt that has these versions and threads."""
        before = self.made_with
        return self if before and before[-1] == made_with else replace(self, made_with=(*before, made_with))

    def manifest(self) -> dict[str, Any]:
        """Return the entries of the manifest of what is made."""
        about = {"node": self.node, "key": self.key, "parts": dict(self.parts), "made_with": list(self.made_with)}
        return about | ({"adopted": dict(self.adopted)} if self.adopted is not None else {})


class KeyRecords:
    """The folder `keys/` of a run: a file for each key that an attempt has begun to compute."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, key: str) -> KeyRecord | None:
        """Return the record of a key, or `None` if there is none that can be read."""
        try:
            found = read_sealed(self.folder / f"{key}.json")
            return KeyRecord(**found | {"made_with": tuple(found["made_with"])})
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, record: KeyRecord) -> None:
        """Write the record of a key. Raises `OSError`."""
        write_sealed(self.folder / f"{record.key}.json", json.loads(json.dumps(asdict(record))))

    def all(self) -> list[KeyRecord]:
        """Return all records that can be read."""
        found = [self.read(path.stem) for path in sorted(self.folder.glob("*.json"))]
        return [record for record in found if record is not None]


def record_of_artifact(folder: Path) -> KeyRecord | None:
    """Return the record in the manifest of an artifact, or `None` if it is damaged. Old versions wrote no parts."""
    try:
        manifest = read_manifest(folder, check_content=False)
        if "parts" not in manifest:
            # An old version: scores bear the name of the model.
            node = f"evaluate {manifest['name']}" if "signatures" in manifest else manifest["name"]
            return KeyRecord(node, manifest["key"], {})
        attempts = tuple(manifest["made_with"])
        return KeyRecord(manifest["node"], manifest["key"], manifest["parts"], attempts, manifest.get("adopted"))
    except (BrokenArtifact, KeyError, TypeError):
        return None


def flattened(value: Any, name: str = "") -> dict[str, Any]:
    """Return the parts of nested JSON data by dotted name. Lists and empty sections keep their places."""
    inner = dict(enumerate(value)) if isinstance(value, list) else value
    if not isinstance(inner, dict) or not inner:
        return {name: value}
    dot = f"{name}." if name else ""
    return {path: part for key, each in inner.items() for path, part in flattened(each, f"{dot}{key}").items()}


def changes(old: KeyRecord, new: KeyRecord) -> dict[str, str]:
    """Return what changed between two keys, by part: `stages.sft.steps 10 → 20`, `tasks.gsm8k.data changed`.

    A record without parts is of an old version: then the part `unknown` says so.
    """
    if not old.parts:
        return {"unknown": "it is not known what changed, as an earlier version made it"}
    both = old.parts.keys() & new.parts.keys()
    names = [name for name in {**old.parts, **new.parts} if name not in both or old.parts[name] != new.parts[name]]
    told = {name: _change(name, _brief(old.parts, name), _brief(new.parts, name)) for name in names}
    if "code" in told:
        releases = [str(record.made_with[-1].get("smallwit")) for record in (old, new) if record.made_with]
        told["code"] += f" (smallwit {' → '.join(releases)})" if len(set(releases)) == 2 else ""
    return told


def _change(name: str, old: str, new: str) -> str:
    return f"{name} changed" if _HASH.fullmatch(old) and _HASH.fullmatch(new) else f"{name} {_cut(old)} → {_cut(new)}"


def _brief(parts: Parts, name: str) -> str:
    return json.dumps(parts[name], ensure_ascii=False) if name in parts else "none"


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."
