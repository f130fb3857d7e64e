"""Print which wheels of a folder this interpreter's machine lacks, a path a line, for `pip install --no-deps`.

Starting from what smallwit needs, a package is taken from the folder where the machine has none of it, or one in a
version that whoever needs it refuses. torch, transformers, numpy and what they bring are the machine's own: where these
are older than asked for it is said, and nothing else is done. Uses the standard library and `packaging`, which
transformers brings.
"""

import sys
import tomllib
from collections.abc import Iterator, Mapping
from email.parser import Parser
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from zipfile import ZipFile

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

EXTRAS = ("lora", "gguf")
PROJECT = Path(__file__).parent.parent / "pyproject.toml"


def wanted(project: Path) -> list[Requirement]:
    """Return what smallwit requires, with the extras that the benchmark uses."""
    table = tomllib.loads(project.read_text(encoding="utf-8"))["project"]
    texts = table["dependencies"] + [text for extra in EXTRAS for text in table["optional-dependencies"][extra]]
    return [Requirement(text) for text in texts]


def needs_of(wheel: Path, extras: set[str], machine: Mapping[str, str] | None = None) -> Iterator[Requirement]:
    """Give what a wheel with these extras requires on this machine, or on one with other values of the markers."""
    with ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA") and n.count("/") == 1)
        metadata = Parser().parsestr(archive.read(name).decode("utf-8"))
    for text in metadata.get_all("Requires-Dist") or []:
        requirement = Requirement(text)
        values = [{**(machine or {}), "extra": extra} for extra in extras or {""}]
        if requirement.marker is None or any(map(requirement.marker.evaluate, values)):
            yield requirement


def lacking(wheels: Mapping[str, Path], requirements: list[Requirement]) -> tuple[list[Path], list[str], list[str]]:
    """Return the wheels to install, what is neither here nor on the machine, and what is older or newer than asked.

    `wheels` are the files by canonical name.
    """
    chosen: dict[str, Path] = {}
    missing: list[str] = []
    unsuitable: list[str] = []
    todo = list(requirements)
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        if name in chosen or (requirement.marker is not None and not requirement.marker.evaluate({"extra": ""})):
            continue
        there = _installed(name)
        if there is not None and requirement.specifier.contains(there, prereleases=True):
            continue
        if name in wheels:
            chosen[name] = wheels[name]
            todo += needs_of(wheels[name], set(requirement.extras))
        elif there is None:
            missing.append(str(requirement))
        else:
            unsuitable.append(f"{name} {there} is here, {requirement} is asked for")
    return list(chosen.values()), missing, unsuitable


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def main() -> None:
    """Print the wheels of the folder that is the argument; refuse when something is missing altogether."""
    wheels = {canonicalize_name(parse_wheel_filename(path.name)[0]): path for path in Path(sys.argv[1]).glob("*.whl")}
    install, missing, unsuitable = lacking(wheels, wanted(PROJECT))
    for line in unsuitable:
        print(f"gpu-kit: {line}; going on with it", file=sys.stderr)
    if missing:
        raise SystemExit(f"gpu-kit: not on this machine, nor in the pieces that are here: {', '.join(missing)}")
    print("\n".join(str(path) for path in install))


if __name__ == "__main__":
    main()
