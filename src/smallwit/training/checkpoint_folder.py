"""The folder of a stage's checkpoints: those of the present key as `step_N`, those of other keys as `KEY/step_N`."""

from contextlib import suppress
from pathlib import Path

from smallwit.errors import UserError
from smallwit.storage.artifacts import BrokenArtifact, link_files, publish, read_manifest, remove, remove_leftovers


def newest_first(folder: Path) -> list[Path]:
    """Return the checkpoints in a folder, without those of other keys."""
    return sorted(folder.glob("step_*"), reverse=True)


def by_key(folder: Path) -> dict[str, list[Path]]:
    """Return the checkpoints of each key, the newest first. Those without a readable manifest are left out."""
    found: dict[str, list[Path]] = {}
    for step in sorted([*folder.glob("step_*"), *folder.glob("*/step_*")], key=lambda path: path.name, reverse=True):
        key = _key_of(step)
        if key is not None:
            found.setdefault(key, []).append(step)
    return found


def set_aside(folder: Path, key: str) -> None:
    """Move the checkpoints of other keys into folders of their own, and those of `key` back from there."""
    for step in newest_first(folder):
        other = _key_of(step)
        if other not in (None, key):
            _move(step, folder / str(other))
    for step in newest_first(folder / key):
        _move(step, folder)
    with suppress(OSError):  # a damaged one may remain
        (folder / key).rmdir()


def adopt(folder: Path, old: str, new: str) -> None:
    """Publish the newest whole checkpoint of the key `old` under the key `new`. Its files are shared.

    Raises `UserError` if there is none.
    """
    set_aside(folder, new)
    for step in by_key(folder).get(old, []):
        with suppress(BrokenArtifact):
            about = {"key": new, "step": read_manifest(step, check_content=True)["step"]}
            publish(folder / step.name, lambda target, step=step: link_files(step, target), about)  # type: ignore[misc]
            return
    raise UserError(f"{folder}: holds no whole checkpoint of the key {old}; run without adopting it")


def clear(folder: Path, key: str) -> None:
    """Delete the checkpoints of `key`, its log, and damaged checkpoints; those of other keys stay."""
    remove_leftovers(folder)
    for step in [*newest_first(folder), *newest_first(folder / key)]:
        if _key_of(step) in (None, key):
            remove(step)
    (folder / f"{key}.jsonl").unlink(missing_ok=True)
    for each in (folder / key, folder):
        with suppress(OSError):
            each.rmdir()


def _move(step: Path, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    if not (folder / step.name).exists():
        step.rename(folder / step.name)


def _key_of(step: Path) -> str | None:
    try:
        return str(read_manifest(step, check_content=False)["key"])
    except (BrokenArtifact, KeyError):
        return None
