"""`make gpu-kit`: what a machine with torch and transformers, and no network, lacks to run `benchmarks/gpu.py`.

The folder gets `kit-1.tar`, `kit-2.tar`, ... of at most 60 MB each, their hashes, and `start.sh`. The first has this
commit's source and the smaller wheels; the larger ones (pyarrow, scipy), which most machines have, come last. Wheels
are for Python 3.12 on Linux x86-64 in the versions of `constraints.txt`. What torch and transformers bring is left out.
"""

import argparse
import hashlib
import io
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from bench import HERE
from gpu_lacking import PROJECT, needs_of, wanted

PIECE_BYTES = 60_000_000
OVERHEAD = 2_000
"""Bytes of a tar file for each member, at most: header, padding and long name."""
TARGET = {
    "python_version": "3.12",
    "python_full_version": "3.12.3",
    "sys_platform": "linux",
    "platform_system": "Linux",
    "platform_machine": "x86_64",
    "os_name": "posix",
    "implementation_name": "cpython",
    "platform_python_implementation": "CPython",
}
GLIBC = (17, 24, 27, 28, 31, 34)
"""Minor versions of glibc 2 that wheels may be built for; pip takes exactly those that are named."""
MACHINES_OWN = frozenset(
    ("torch", "transformers", "numpy", "triton", "tokenizers", "safetensors", "huggingface-hub", "hf-xet", "packaging")
)
"""Never in the kit: another version of one of these would not suit the machine's torch and transformers."""


def download(names: Iterable[str], folder: Path) -> None:
    """Download the target's wheels of these packages, in the versions of `constraints.txt`, without what they need."""
    platforms = [f"manylinux_2_{minor}_x86_64" for minor in GLIBC] + ["manylinux2014_x86_64", "manylinux1_x86_64"]
    words = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    words += ["--only-binary=:all:", "--python-version", "3.12", "--implementation", "cp"]
    words += ["--abi", "cp312", "--abi", "abi3", "--abi", "none", "--dest", str(folder)]
    for platform in platforms:
        words += ["--platform", platform]
    pins = pinned()
    unpinned = sorted(set(names) - pins.keys())
    if unpinned:
        raise SystemExit(f"gpu-kit: constraints.txt has no version of {', '.join(unpinned)}; pin it there")
    subprocess.run([*words, *(f"{name}=={pins[name]}" for name in sorted(names))], check=True)


def pinned() -> dict[str, str]:
    """Return the versions of `constraints.txt` by canonical name."""
    lines = (PROJECT.parent / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if re.match(r"[A-Za-z0-9]", line)]
    return {str(canonicalize_name(name)): version for name, version in pairs}


def gather(folder: Path) -> list[Path]:
    """Download the wheels of all that smallwit needs on the target, and of all that these need."""
    todo, seen = wanted(PROJECT), set(MACHINES_OWN)
    while todo:
        fresh = {str(canonicalize_name(requirement.name)): requirement for requirement in todo if _applies(requirement)}
        fresh = {name: requirement for name, requirement in fresh.items() if name not in seen}
        todo = []
        if fresh:
            download(fresh, folder)
            seen |= fresh.keys()
        for wheel in folder.glob("*.whl"):
            name = str(canonicalize_name(wheel.name.partition("-")[0]))
            if name in fresh:
                todo += needs_of(wheel, set(fresh[name].extras), TARGET)
    return sorted(folder.glob("*.whl"))


def _applies(requirement: Requirement) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({**TARGET, "extra": ""})


def split(files: Sequence[tuple[str, int]], limit: int = PIECE_BYTES) -> list[list[str]]:
    """Return names in groups of at most `limit` bytes, the smallest files first.

    Raises `ValueError` for a file that is larger.
    """
    groups: list[list[str]] = [[]]
    filled = 0
    for name, size in sorted(files, key=lambda file: (file[1], file[0])):
        if size + OVERHEAD > limit:
            raise ValueError(f"{name} has {size} bytes, and a piece may have {limit}")
        if filled + size + OVERHEAD > limit:
            groups.append([])
            filled = 0
        groups[-1].append(name)
        filled += size + OVERHEAD
    return groups


def metadata() -> bytes:
    """Return what makes smallwit an installed package where its source is only on the path: protocols name versions."""
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    return f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n".encode()


def pack(source: bytes, wheels: Sequence[Path], out: Path) -> list[Path]:
    """Write the pieces, their hashes and the script into `out`; return the pieces. `source` is a tar file's content."""
    sizes = [(wheel.name, wheel.stat().st_size) for wheel in wheels]
    by_name = {wheel.name: wheel for wheel in wheels}
    pieces = []
    # The source is in the first piece. Its room is taken off every piece, which is simpler and costs a few megabytes.
    for number, names in enumerate(split(sizes, PIECE_BYTES - len(source) - 10_240), 1):
        piece = out / f"kit-{number}.tar"
        with tarfile.open(piece, "w") as archive:
            if number == 1:
                with tarfile.open(fileobj=io.BytesIO(source)) as tree:
                    for member in tree.getmembers():
                        archive.addfile(member, tree.extractfile(member) if member.isfile() else None)
                about = tarfile.TarInfo("source/src/smallwit.dist-info/METADATA")
                about.size = len(metadata())
                archive.addfile(about, io.BytesIO(metadata()))
            for name in names:
                archive.add(by_name[name], f"wheels/{name}")
        pieces.append(piece)
    sums = [f"{hashlib.sha256(piece.read_bytes()).hexdigest()}  {piece.name}\n" for piece in pieces]
    (out / "SHA256SUMS").write_text("".join(sums), encoding="utf-8")
    shutil.copy(HERE / "gpu_start.sh", out / "start.sh")
    return pieces


def main() -> None:
    """Gather, and write the kit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("gpu-kit"))
    out: Path = parser.parse_args().out
    git = ["git", "-C", str(PROJECT.parent)]
    if subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True).stdout:
        print("gpu-kit: there are changes that are not committed; the kit has the last commit")
    source = subprocess.run([*git, "archive", "--prefix=source/", "HEAD"], capture_output=True, check=True).stdout
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    with tempfile.TemporaryDirectory(prefix="gpu-kit-") as folder:
        wheels = gather(Path(folder))
        pieces = pack(source, wheels, out)
    for piece in pieces:
        print(f"{piece}: {piece.stat().st_size / 1e6:.1f} MB")
    print(f"{len(wheels)} wheels; on the other machine: sh {out.name}/start.sh --out DIR")


if __name__ == "__main__":
    main()
