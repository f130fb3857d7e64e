"""The house: what may import what, one meaning a class name, one place for each kind of stage."""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import smallwit
from smallwit.recipe.section import kinds_of, subclasses_of
from smallwit.recipe.stage import Stage

SOURCE = Path(smallwit.__file__).parent
MODULES = sorted(SOURCE.rglob("*.py"))
PAGE = Path(__file__).parents[1] / "docs" / "architecture.md"
# From the bottom up.
ROOMS = [
    "errors",
    "seeds",
    "suggestions",
    "thoughts",
    "console",
    "storage",
    "network",
    "rows",
    "device",
    "verify",
    "tasks",
    "models",
    "recipe",
    "objectives",
    "inference",
    "training",
    "data",
    "evaluation",
    "stages",
    "report",
    "use",
    "pipeline",
    "cli",
]


def room_of(module: Path) -> str:
    return module.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported_rooms(module: Path) -> Iterator[str]:
    """The rooms that a module imports when it runs: imports for type checkers alone do not count."""
    tree = ast.parse(module.read_text(encoding="utf-8"))
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and id(node) not in for_types:
            first, *rest = node.module.split(".")
            if first == "smallwit":
                yield from rest[:1] or (alias.name for alias in node.names if (SOURCE / alias.name).exists())


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.relative_to(SOURCE).as_posix())
def test_imports_run_downward(module: Path) -> None:
    room = room_of(module)
    if room in ("__init__", "__main__"):
        return
    below = ROOMS[: ROOMS.index(room) + 1]
    assert [other for other in imported_rooms(module) if other not in below] == []


def test_the_page_lists_the_rooms_in_their_order() -> None:
    table = PAGE.read_text(encoding="utf-8").partition("## The rooms")[2].partition("## ")[0]
    cells = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
    listed = [re.sub(r"/|\.py", "", name) for cell in cells for name in re.findall(r"`(.*?)`", cell)]
    assert listed == ROOMS[::-1]


def test_the_top_level_has_at_most_eight_modules() -> None:
    assert len(list(SOURCE.glob("*.py"))) <= 8


def test_no_class_name_stands_for_two_things() -> None:
    counts = Counter(
        node.name
        for module in MODULES
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    )
    assert [name for name, count in counts.items() if count > 1] == []


def test_only_their_own_package_knows_kinds_of_stages_by_class() -> None:
    kinds_of(Stage)
    names = {stage.__name__ for stage in subclasses_of(Stage)}
    checks = re.compile(r"isinstance\([^)]*\b(" + "|".join(names) + r")\b")
    elsewhere = [module for module in MODULES if room_of(module) not in ("stages", "pipeline")]
    assert [
        module.name for module in MODULES if room_of(module) != "stages" and checks.search(module.read_text())
    ] == []
    assert [
        module.name for module in elsewhere for name in names if re.search(rf"\b{name}\b", module.read_text())
    ] == []
