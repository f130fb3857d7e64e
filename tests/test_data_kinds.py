"""New kinds of data steps, rules, sources and augmentations: one module each, and nothing else."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

DATA_PAGE = Path(__file__).parents[1] / "docs" / "data.md"
STEP = re.findall(r"```python\n(.*?class ShortPrompts.*?)```", DATA_PAGE.read_text(encoding="utf-8"), re.DOTALL)[0]
RULE = """
from typing import Literal
from smallwit.data.rule import FilterRule

class Even(FilterRule):
    kind: Literal["even"]

    def violation(self, prompt, completion):
        return "is odd" if len(prompt) % 2 else None
"""
SOURCE = """
from typing import Literal
from smallwit.data.source import RowSource

class Counting(RowSource):
    kind: Literal["counting"]

    def read(self, reader):
        for number in range(4):
            yield {"id": str(number), "prompt": "a" * number}, f"number {number}"
"""
METHOD = """
from typing import Literal
from smallwit.data.augmentation import AugmentationMethod

class Poem(AugmentationMethod):
    kind: Literal["poem"]
"""
READ = """
import json, sys
import smallwit.data.{package}
smallwit.data.{package}.__path__.append(sys.argv[2])
from pathlib import Path
from smallwit.data.build import build
from smallwit.data.context import Resources
from smallwit.recipe.file import load_recipe
stage = load_recipe(Path(sys.argv[1])).stages[0]
here = Path(sys.argv[1]).parent
resources = Resources({{}}, here, None, 0, None, {{}}, *[lambda *given: None] * 3)
if sys.argv[3] == "build":
    build([step for step in stage.steps if step.kind != "decontaminate"], resources, here, "report")
    print((here / "build" / "train-00000-of-00001.jsonl").read_text())
else:
    print(stage.steps[1].ways[0].name)
"""


@pytest.mark.parametrize(
    ("package", "code", "steps", "prompts"),
    [
        ("steps", STEP, "[{kind: gather, sources: [FILE]}, {kind: short_prompts, most: 1}]", ["a"]),
        ("rules", RULE, "[{kind: gather, sources: [FILE]}, {kind: filter, rules: [{kind: even}]}]", ["bb"]),
        (
            "sources",
            SOURCE,
            "[{kind: gather, sources: [{kind: counting, limit: 3, order: given, origin: me, license: MIT}]}]",
            ["", "a", "aa"],
        ),
    ],
)
def test_a_kind_is_one_module(tmp_path: Path, package: str, code: str, steps: str, prompts: list[str]) -> None:
    rows = [json.loads(line)["prompt"] for line in _read(tmp_path, package, code, steps, "build").splitlines() if line]
    assert rows == prompts


def test_an_augmentation_is_one_module(tmp_path: Path) -> None:
    steps = "[{kind: gather, sources: [FILE]}, {kind: augment, teacher: t, ways: [{kind: poem}]}]"
    assert _read(tmp_path, "augmentations", METHOD, steps, "name").split() == ["poem"]


def test_reading_a_recipe_imports_no_heavy_library() -> None:
    heavy = {"torch", "transformers", "datasets", "numpy", "pyarrow", "datasketch", "sympy", "httpx2"}
    code = f"import sys, smallwit.recipe.file; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"


def _read(folder: Path, package: str, code: str, steps: str, what: str) -> str:
    """Return what a process prints that reads, and builds, a recipe with a kind from a module of its own."""
    modules = folder / "modules"
    modules.mkdir()
    (modules / "toy.py").write_text(code)
    (folder / "rows.jsonl").write_text('{"prompt": "a"}\n{"prompt": "bb"}\n')
    recipe = folder / "recipe.yaml"
    steps = steps.replace("FILE", "{kind: file, path: rows.jsonl, origin: me, license: MIT}")
    models = "models: {t: {folder: nowhere}}\n" if what == "name" else ""
    recipe.write_text(f"name: toy\n{models}stages: [{{name: d, kind: dataset, steps: {steps}}}]\n")
    command = [sys.executable, "-c", READ.format(package=package), str(recipe), str(modules), what]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout
