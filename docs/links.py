"""Find dead links of the pages: `python docs/links.py` names each with its page, and fails if there is one."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"\]\(([^)\s]+)\)")


def anchors(page: Path) -> set[str]:
    """Return the names of a page's headings as GitHub makes them: lower case, signs dropped, spaces as hyphens."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def local_links(page: Path) -> list[str]:
    """Return the links of a page to files and headings of the project; what stands in code is none."""
    text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return [link for link in LINK.findall(text) if "://" not in link]


def dead_links(page: Path) -> list[str]:
    """Return the links of a page whose file or heading does not exist."""
    dead = []
    for link in local_links(page):
        name, _, anchor = link.partition("#")
        target = (page.parent / name) if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            dead.append(link)
    return dead


if __name__ == "__main__":
    found = [f"{page.relative_to(ROOT)}: dead link {link}" for page in PAGES for link in dead_links(page)]
    print("\n".join(found) or f"{len(PAGES)} pages, no dead link")
    sys.exit(bool(found))
