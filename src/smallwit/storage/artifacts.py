"""Artifacts: folders that are published whole or not at all.

Everything a stage makes is written to a temporary folder beside its place, described by a manifest, synced to disk and
renamed. A folder without a valid manifest is never read.
"""

import errno
import hashlib
import json
import os
import re
import shutil
import stat
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from smallwit.storage.jsonl import parse_json

MANIFEST = "manifest.json"
METRICS = "metrics.jsonl"
"""A trained model's log, one JSON object a step: part of its artifact, and of the stage's folder in a run."""
_DISK_REFUSES = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}


class BrokenArtifact(Exception):
    """A published folder does not match its manifest. The message names the file and what is wrong with it."""


def content_key(value: Any) -> str:
    """Return a short hash of JSON data, the same for equal data."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:20]


def file_hash(path: Path) -> str:
    """Return sha256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_hash(folder: Path) -> str:
    """Return one hash over the names and contents of all files below a folder, except manifest and metrics."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name not in (MANIFEST, METRICS))
    return content_key([[p.relative_to(folder).as_posix(), file_hash(p)] for p in files])


def publish(folder: Path, write: Callable[[Path], object], about: dict[str, Any]) -> None:
    """Let `write` fill a temporary folder, then make it appear as `folder` with `about` in its manifest.

    If `folder` is already there, it stays as it is. When `write` fails nothing is left behind. Raises whatever `write`
    raises, and `OSError` when the disk is full (`disk_trouble` finds that out in either).
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.parent / f".{folder.name}.{uuid.uuid4().hex[:8]}.tmp"
    temporary.mkdir()
    try:
        write(temporary)
        files = sorted(p for p in temporary.rglob("*") if p.is_file())
        manifest = about | {
            "files": {
                p.relative_to(temporary).as_posix(): {"bytes": p.stat().st_size, "sha256": file_hash(p)} for p in files
            }
        }
        (temporary / MANIFEST).write_text(json.dumps(manifest | {"sum": content_key(manifest)}, indent=1))
        folders = [p for p in temporary.rglob("*") if p.is_dir()]
        for path in [*files, temporary / MANIFEST, *folders, temporary]:
            sync(path)
        if not folder.exists():
            temporary.rename(folder)
            sync(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def link_files(source: Path, target: Path) -> None:
    """Fill `target` with the files of an artifact, without its manifest. They are shared if the file system can."""
    for file in sorted(path for path in source.rglob("*") if path.is_file() and path.name != MANIFEST):
        place = target / file.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(file, place)
        except OSError:
            shutil.copyfile(file, place)


def read_manifest(folder: Path, *, check_content: bool) -> dict[str, Any]:
    """Return the manifest of a published folder. Raises `BrokenArtifact` if a file is missing or changed.

    `check_content` compares every file's sha256 and the manifest's own sum, and refuses files that it does not list;
    otherwise only the sizes are compared.
    """
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
        files = {name: (expected["bytes"], expected["sha256"]) for name, expected in manifest["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BrokenArtifact(f"{folder}: manifest unreadable ({type(error).__name__})") from error
    if check_content:
        _check_manifest(folder, manifest)
    for name, (size, digest) in files.items():
        path = folder / name
        if not path.is_file():
            raise BrokenArtifact(f"{path}: missing")
        if path.stat().st_size != size:
            raise BrokenArtifact(f"{path}: {path.stat().st_size} bytes, manifest says {size}")
        if check_content and file_hash(path) != digest:
            raise BrokenArtifact(f"{path}: content differs from its manifest")
    return manifest


def _check_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """Raise `BrokenArtifact` when the manifest was changed, or when the folder holds a file that it does not list.

    Readers use whatever files they find. Hidden files are ignored, as systems and editors make them.
    """
    path = folder / MANIFEST
    if manifest.get("sum") != content_key({name: value for name, value in manifest.items() if name != "sum"}):
        raise BrokenArtifact(f"{path}: its sum differs from its content")
    present = (found.relative_to(folder) for found in folder.rglob("*") if not found.is_dir())
    visible = (name for name in present if not any(part.startswith(".") for part in name.parts))
    unlisted = sorted({name.as_posix() for name in visible} - {MANIFEST, *manifest["files"]})
    if unlisted:
        raise BrokenArtifact(f"{folder / unlisted[0]}: not in the manifest")


def remove(folder: Path) -> None:
    """Delete a published folder. One that is killed meanwhile leaves no folder that looks damaged."""
    temporary = folder.parent / f".removed.{uuid.uuid4().hex[:8]}.tmp"
    folder.rename(temporary)
    shutil.rmtree(temporary)


def remove_leftovers(parent: Path) -> None:
    """Delete unfinished files and folders that a killed process left in `parent`."""
    for path in parent.glob(".*.tmp"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def write_atomically(path: Path, text: str) -> None:
    """Replace a text file in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        temporary.write_text(text, encoding="utf-8")
        sync(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_sealed(path: Path, data: dict[str, Any]) -> None:
    """Replace a JSON file in one step; it holds a checksum of its data."""
    write_atomically(path, json.dumps(data | {"sum": content_key(data)}, indent=1, allow_nan=False))


def read_sealed(path: Path) -> dict[str, Any]:
    """Return the data that `write_sealed` has written. Raises `ValueError` when it was changed since, and `OSError`."""
    data = parse_json(path.read_bytes())
    if not isinstance(data, dict) or data.pop("sum", None) != content_key(data):
        raise ValueError("its sum differs from its content")
    return data


def open_own(path: Path, *, follow_links: bool = False) -> BinaryIO:
    """Open a file for appending and reading, or make it. Its content stays as it is.

    Raises `OSError` for what is no ordinary file. A symbolic link is none without `follow_links`: it may point to a
    file of somebody else.
    """
    links = 0 if follow_links else os.O_NOFOLLOW
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | links, 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "is no ordinary file", str(path))
    return os.fdopen(descriptor, "a+b")


def why_not_opened(error: OSError) -> str:
    """Return why `open_own` could not open a file, in words."""
    if error.errno not in (errno.ELOOP, errno.EINVAL):
        return str(error.strerror)
    what = "is a symbolic link" if error.errno == errno.ELOOP else error.strerror
    return f"{Path(error.filename).name} {what}; remove it"


def make_link(link: Path, target: Path) -> None:
    """Make `link` a symbolic link to `target`, in one step, whatever stood there; relative, so that a run can move."""
    link.parent.mkdir(parents=True, exist_ok=True)
    temporary = link.parent / f".{link.name}.{uuid.uuid4().hex[:8]}.tmp"
    temporary.symlink_to(os.path.relpath(target, link.parent))
    temporary.replace(link)


def disk_trouble(error: BaseException) -> str | None:
    """Return the reason (disk full, over the quota, read-only) if `error` comes from the disk, else `None`.

    Writers in native code hide the system's error behind one of their own: torch behind a `RuntimeError` whose context
    it is, safetensors in the text of its message.
    """
    while True:
        hidden = re.search(r"\(os error (\d+)\)", str(error))
        code = error.errno if isinstance(error, OSError) else int(hidden[1]) if hidden else None
        if code in _DISK_REFUSES:
            return os.strerror(code)
        behind = error.__cause__ or error.__context__
        if behind is None:
            return None
        error = behind


def sync(path: Path) -> None:
    """Wait until the disk has a file, or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
