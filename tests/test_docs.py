"""The pages: links lead somewhere, every page is behind one door of docs/index.md, generated pages are current."""

import json
import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
GENERATE = runpy.run_path(str(ROOT / "docs/generate.py"))
LINK = re.compile(r"\]\(([^)\s]+)\)")


def anchors(page: Path) -> set[str]:
    """The names of a page's headings as GitHub makes them: lower case, signs dropped, spaces as hyphens."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def local_links(page: Path) -> list[str]:
    links: list[str] = LINK.findall(
        re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    )
    return [link for link in links if "://" not in link]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_link_is_dead(page: Path) -> None:
    dead = []
    for link in local_links(page):
        name, _, anchor = link.partition("#")
        target = (page.parent / name) if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            dead.append(link)
    assert dead == []


def test_every_page_is_behind_one_door() -> None:
    listed = [link for link in local_links(ROOT / "docs/index.md") if not link.startswith("..")]
    pages = [page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md")]
    assert sorted(listed) == sorted(set(pages) - {"index.md"})


def test_the_readme_leads_to_the_doors() -> None:
    assert "docs/index.md" in local_links(ROOT / "README.md")


def test_every_generated_page_is_what_the_code_says() -> None:
    stale = [path.name for path, text in GENERATE["pages"]().items() if path.read_text(encoding="utf-8") != text]
    assert stale == [], "run `make docs`"


def test_every_key_of_a_recipe_is_described() -> None:
    assert GENERATE["undescribed"](json.loads(GENERATE["recipe_schema"]())) == []
