"""Fixtures that several test files share."""

from collections.abc import Callable
from pathlib import Path

import pytest

from recipe_samples import RECIPE, refusal
from smallwit.recipe_file import check_recipe, read_recipe


@pytest.fixture
def write_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Write a recipe into an empty folder, the current one; messages then name it as `r.yaml`."""
    monkeypatch.chdir(tmp_path)

    def write_text(text: str) -> Path:
        Path("r.yaml").write_text(text, encoding="utf-8")
        return Path("r.yaml")

    return write_text


@pytest.fixture
def refused_recipe(write_recipe: Callable[[str], Path]) -> Callable[..., str]:
    """The message with which reading and checking refuses the recipe after `old` was replaced by `new`."""

    def edit(old: str, new: str) -> str:
        assert RECIPE.count(old) == 1, f"{old!r} must stand once in the recipe"
        path = write_recipe(RECIPE.replace(old, new))

        def load() -> None:
            recipe, lines = read_recipe(path)
            check_recipe(recipe, Path(), None, lines=lines, read_data=False)

        return refusal(load)

    return edit
