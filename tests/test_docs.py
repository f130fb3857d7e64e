"""The pages: links lead somewhere, every page is behind one door of docs/index.md, generated pages are current."""

import json
import re
import runpy
import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from smallwit.data.step import DataStep
from smallwit.objectives.settings import Objective
from smallwit.recipe.section import kinds_of
from smallwit.study.schema import Study
from smallwit.training.distributed import World
from together import together

ROOT = Path(__file__).parents[1]
GENERATE = runpy.run_path(str(ROOT / "docs/generate.py"))
LINKS = runpy.run_path(str(ROOT / "docs/links.py"))
local_links = LINKS["local_links"]


@pytest.mark.parametrize("page", LINKS["PAGES"], ids=lambda page: page.name)
def test_no_link_is_dead(page: Path) -> None:
    assert LINKS["dead_links"](page) == []


def test_a_link_to_what_is_not_there_is_dead(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# Here\n[a](page.md) [b](#here) [c](#there) [d](other.md) [e](https://example.org) `[f](code.md)`\n"
    )
    assert LINKS["dead_links"](page) == ["#there", "other.md"]


def test_every_page_is_behind_one_door() -> None:
    listed = [link for link in local_links(ROOT / "docs/index.md") if not link.startswith("..")]
    pages = [page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md")]
    assert sorted(listed) == sorted(set(pages) - {"index.md"})


def test_the_readme_leads_to_the_doors() -> None:
    assert "docs/index.md" in local_links(ROOT / "README.md")


def test_every_generated_page_is_what_the_code_says() -> None:
    stale = [path.name for path, text in GENERATE["pages"]().items() if path.read_text(encoding="utf-8") != text]
    assert stale == [], "run `make docs`"


def test_every_key_of_a_recipe_and_of_a_study_is_described() -> None:
    assert GENERATE["undescribed"](json.loads(GENERATE["recipe_schema"]())) == []
    assert GENERATE["undescribed"](Study.model_json_schema()) == []


@pytest.mark.slow
def test_the_divergence_and_the_data_step_of_contributing_are_kinds_that_recipes_can_name(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "hellinger.py").write_text(blocks[0])
    (tmp_path / "head.py").write_text(blocks[1])
    (found,) = together(of_contributing, tmp_path, size=1)
    assert found == (pytest.approx(1 - 0.45**0.5 - 0.05**0.5, abs=1e-6), ["a"], ["comes after the first 1 rows"])


def of_contributing(world: World, folder: Path) -> tuple[float, list[str], list[str]]:
    """What both kinds do. In a process of its own: a class that is defined is a kind from then on."""
    sys.path.insert(0, str(folder))
    head, hellinger = map(import_module, ("head", "hellinger"))
    assert head.Head in kinds_of(DataStep)
    assert hellinger.Hellinger in kinds_of(Objective)
    half = torch.full((1, 2), 0.5)
    pair = SimpleNamespace(log_p=half.log(), log_q=torch.tensor([[0.9, 0.1]]).log())
    value, _ = hellinger.Hellinger.make().evaluate(pair, half)
    dropped: list[str] = []
    context = SimpleNamespace(drop=lambda row, reason, text: dropped.append(text))
    return value.item(), list(head.Head(kind="head", count=1).rows(iter("ab"), context)), dropped
