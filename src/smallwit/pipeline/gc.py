"""Garbage of a run's folder: artifacts, checkpoints, samples, shards and journals that its recipe no longer names."""

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from smallwit.errors import UserError
from smallwit.pipeline.key_records import KeyRecords, record_of_artifact
from smallwit.pipeline.run_folder import PLAN, RunFolder
from smallwit.recipe.section import kinds_of
from smallwit.recipe.stage import Stage, Unfinished
from smallwit.stages.evaluate import PARTIAL
from smallwit.storage.artifacts import read_sealed
from smallwit.storage.locks import occupied


@dataclass(frozen=True)
class Garbage:
    """Files and folders that no recipe of the run names: of which stage, what they are, bytes, and age in seconds."""

    stage: str
    what: str
    paths: tuple[Path, ...]
    size: int
    age: float


def collect(run_dir: Path, *, delete: bool = False, keep: int | None = None) -> list[Garbage]:
    """Return the garbage of a run, the oldest first, and delete it with `delete`.

    With `keep` only as much of `store/` is garbage, the oldest first, as makes it smaller than `keep` bytes.

    Raises `UserError` if the folder is no run's, a run is at work there, or its plan is not known.
    """
    folder = RunFolder(run_dir)
    if not folder.store.is_dir():
        raise UserError(f"{run_dir}: holds no run; name the folder of one, as runs/quickstart")
    with occupied(run_dir, str(run_dir)):
        named, stages = _named(folder)
        found = sorted([*_in_store(folder, named), *_in_stages(folder, named, stages)], key=lambda one: -one.age)
        if keep is not None:
            found = _beyond([one for one in found if folder.store in one.paths[0].parents], _size(folder.store), keep)
        if delete:
            for one in found:
                for path in one.paths:
                    _remove(path)
            _forget(folder, named)
            for link in [*folder.stages.glob("*/*"), *folder.evaluation.glob("*")]:
                if link.is_symlink() and not link.exists():
                    link.unlink()
    return found


def _named(folder: RunFolder) -> tuple[set[str], set[str]]:
    """Return the keys that the recipe names, and the names of its stages' folders."""
    try:
        nodes: dict[str, dict[str, str]] = read_sealed(folder.path / PLAN)["nodes"]
        keys = {node["key"] for node in nodes.values()}
        stages = {node["folder"] for node in nodes.values()}
    except (OSError, ValueError, KeyError, TypeError) as error:
        what = f"holds no {PLAN} that can be read, so it is not known what its recipe names"
        raise UserError(f"{folder.path}: {what}; run the recipe there again, which writes it") from error
    return keys, stages


def _in_store(folder: RunFolder, named: set[str]) -> Iterator[Garbage]:
    for path in sorted(folder.store.glob("[!.]*")):
        if path.name in named or path.name.removeprefix(PARTIAL) in named or not path.is_dir():
            continue
        record = record_of_artifact(path)
        if path.name.startswith(PARTIAL):
            record = folder.keys.read(path.name.removeprefix(PARTIAL))
            what = "samples of an evaluation that has not ended"
        else:
            what = "a damaged artifact" if path.name.startswith("broken-") else "an artifact"
        yield _garbage(record.node if record is not None else "?", what, (path,))


def _in_stages(folder: RunFolder, named: set[str], stages: set[str]) -> Iterator[Garbage]:
    """Yield unfinished work of keys that are not named, and the folders of stages that the recipe lacks."""
    for work in sorted(path for path in folder.stages.glob("*") if path.is_dir() and not path.is_symlink()):
        name = work.name.partition("-")[2]
        if work.name not in stages:
            yield _garbage(name, "all work of a stage that the recipe lacks", (work,))
            continue
        for key, found in _unfinished(work, folder).items():
            # A journal without a record is of an endpoint and not of a key: it stays valid.
            if key not in named and (found.paths[0].is_dir() or folder.keys.read(key) is not None):
                yield _garbage(name, found.what, tuple(path for path in found.paths if path.exists()))


def _unfinished(work: Path, folder: RunFolder) -> dict[str, Unfinished]:
    """Return the unfinished work in a stage's folder, whatever its kind is."""
    found: dict[str, Unfinished] = {}
    for kind in kinds_of(Stage):
        found |= kind.model_construct(name="").unfinished(work, folder.store)
    return found


def _garbage(stage: str, what: str, paths: tuple[Path, ...]) -> Garbage:
    age = time.time() - max(path.stat().st_mtime for path in paths)
    return Garbage(stage, what, paths, sum(map(_size, paths)), age)


def _beyond(found: Sequence[Garbage], total: int, keep: int) -> list[Garbage]:
    """Return the first pieces of garbage without which `total` bytes are at most `keep`."""
    chosen = []
    for one in found:
        if total <= keep:
            break
        chosen.append(one)
        total -= one.size
    return chosen


def _forget(folder: RunFolder, named: set[str]) -> None:
    """Delete the records of keys of which nothing is left."""
    left: set[str] = {path.name.removeprefix(PARTIAL) for path in folder.store.glob("*")}
    for work in folder.stages.glob("*"):
        left |= _unfinished(work, folder).keys()
    for record in KeyRecords(folder.keys.folder).all():
        if record.key not in named | left:
            (folder.keys.folder / f"{record.key}.json").unlink()


def _size(path: Path) -> int:
    """Return the bytes of a file or of the files in a folder; links count nothing."""
    files = path.rglob("*") if path.is_dir() else iter([path])
    return sum(file.stat().st_size for file in files if file.is_file() and not file.is_symlink())


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    with suppress(OSError):  # a folder of other keys' checkpoints
        path.parent.rmdir()
