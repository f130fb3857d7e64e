"""A recipe on a machine that is had for minutes at a time, with no network: files go there in pieces of 60 MB.

    python benchmarks/away.py pack FOLDER FILE...      # here: the pieces of FILE... and their hashes
    python benchmarks/away.py run RECIPE --pieces FOLDER --work WORK --out OUT --seconds N --set models.student.gguf=...

There `run` adds the pieces that lie in FOLDER to those of earlier calls, and names what is missing (status 3). When all
are there they are joined in WORK/files, and the recipe runs in WORK/run: a call goes on where the one before stopped.
OUT gets what is small as it is made: metrics, samples, results, adapters. After N seconds the run saves and stops
(status 4), and OUT/state has its folder in pieces. Brought to another machine beside the others, they go on there.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

PIECE_BYTES = 60_000_000
LIST, STATE = "pieces.json", "state.tar"
MISSING, STOPPED = 3, 4
COPIED_EVERY = 15.0  # seconds


def pack(files: Sequence[Path], folder: Path, size: int = PIECE_BYTES) -> None:
    """Write the pieces of files, of at most `size` bytes, and the list of them with their hashes."""
    folder.mkdir(parents=True, exist_ok=True)
    listed: dict[str, dict[str, str]] = {}
    for path in files:
        pieces = listed[path.name] = {}
        with path.open("rb") as file:
            while data := file.read(size):
                name = f"{path.name}.{len(pieces) + 1:03}"
                (folder / name).write_bytes(data)
                pieces[name] = hashlib.sha256(data).hexdigest()
    (folder / LIST).write_text(json.dumps(listed, indent=1), encoding="utf-8")


def join(folder: Path, work: Path) -> list[str]:
    """Take the whole pieces of `folder` into `work`, join the files of which all are there; name the missing pieces."""
    kept, joined = work / "pieces", work / "files"
    for place in (kept, joined):
        place.mkdir(parents=True, exist_ok=True)
    missing = []
    for listing in sorted(folder.rglob(LIST)):
        for file, pieces in json.loads(listing.read_text(encoding="utf-8")).items():
            for name, digest in pieces.items():
                brought = listing.parent / name
                if not _is(kept / name, digest) and _is(brought, digest):
                    shutil.copyfile(brought, kept / name)
            lacking = [name for name, digest in pieces.items() if not _is(kept / name, digest)]
            missing += lacking
            if not lacking and not (joined / file).exists():
                with (joined / f"{file}.tmp").open("wb") as whole:
                    for name in pieces:
                        whole.write((kept / name).read_bytes())
                (joined / f"{file}.tmp").rename(joined / file)
    return missing


def _is(path: Path, digest: str) -> bool:
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == digest


def copy_small(run: Path, out: Path) -> None:
    """Copy what is new of the files of a run that are at most a piece long; checkpoints are in the state alone."""
    for path in run.rglob("*"):
        place = out / path.relative_to(run)
        if "checkpoints" in path.parts or path.name.startswith(".") or path.suffix == ".tmp":
            continue
        with suppress(FileNotFoundError):  # it was moved meanwhile
            about = path.stat()
            if not path.is_file() or about.st_size > PIECE_BYTES:
                continue
            if not (place.exists() and place.stat().st_mtime_ns == about.st_mtime_ns):
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, place)
                # Its time before it was copied: what is written meanwhile is copied again.
                os.utime(place, ns=(about.st_atime_ns, about.st_mtime_ns))


def run(command: Sequence[str], work: Path, out: Path, seconds: float) -> int:
    """Run a command whose folder is `work/run` for at most `seconds`; return its status, or that it was stopped."""
    state, folder = work / "files" / STATE, work / "run"
    if state.exists() and not folder.exists():
        with tarfile.open(state) as archive:
            archive.extractall(work, filter="data")
    process = subprocess.Popen(command)
    ends, stopped = time.monotonic() + seconds, False
    while True:
        try:
            status = process.wait(max(0.0, min(COPIED_EVERY, ends - time.monotonic())) if not stopped else None)
            break
        except subprocess.TimeoutExpired:
            copy_small(folder, out)
            if time.monotonic() >= ends:
                process.terminate()  # as Ctrl-C, which a process in the background ignores
                stopped = True
    copy_small(folder, out)
    if stopped and status:
        if folder.exists():
            with tarfile.open(work / STATE, "w") as archive:
                archive.add(folder, "run")
            pack([work / STATE], out / "state")
        return STOPPED
    return status


def main() -> int:
    """Pack files, or run a recipe with them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    todo = parser.add_subparsers(required=True, dest="todo")
    packing = todo.add_parser("pack")
    packing.add_argument("folder", type=Path)
    packing.add_argument("files", type=Path, nargs="+")
    running = todo.add_parser("run")
    running.add_argument("recipe", type=Path)
    for name in ("pieces", "work", "out"):
        running.add_argument(f"--{name}", type=Path, required=True)
    running.add_argument("--seconds", type=float, required=True)
    running.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    given = parser.parse_args()
    if given.todo == "pack":
        pack(given.files, given.folder)
        return 0
    if missing := join(given.pieces, given.work):
        print(f"away: still to be brought: {', '.join(missing)}")
        return MISSING
    command = [sys.executable, "-m", "smallwit", "run", str(given.recipe), "--run-dir", str(given.work / "run")]
    command += ["--offline", *(word for text in given.set for word in ("--set", text))]
    return run(command, given.work, given.out, given.seconds)


if __name__ == "__main__":
    sys.exit(main())
