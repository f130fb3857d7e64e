"""Fixtures that several test files share."""

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

import interruption
import pipeline_recipes as micro
from data_step_cases import resources, step  # noqa: F401  fixtures of the tests of data steps
from pipeline_recipes import Ran
from recipe_samples import RECIPE, refusal
from smallwit.pipeline.preflight import check_recipe
from smallwit.recipe.file import read_recipe
from smallwit.verify import consent

# The tests' own programs may run on a machine without namespaces too; `test_isolation` takes the consent back.
os.environ[consent.VARIABLE] = "1"
# A shell that starts the tests in the background lets them ignore Ctrl-C, which some of them are about.
signal.signal(signal.SIGINT, signal.default_int_handler)


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


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """The micro recipe, run once."""
    return micro.once(tmp_path_factory, "finished", lambda folder: micro.run(micro.write(folder), folder / "run"))


@pytest.fixture
def again(finished: Ran, tmp_path: Path) -> Callable[..., Ran]:
    """Run the micro recipe in a copy of the finished run, with settings changed."""
    recipe = micro.write(tmp_path)
    shutil.copytree(finished.run_dir, tmp_path / "run", symlinks=True)

    def run(*overrides: str, recipe_text: str = micro.RECIPE) -> Ran:
        recipe.write_text(recipe_text)
        return micro.run(recipe, tmp_path / "run", *overrides)

    return run


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """The run that nobody interrupts."""
    return micro.once(
        tmp_path_factory, "whole", lambda folder: micro.run(micro.write(folder, interruption.RECIPE), folder / "run")
    )


@pytest.fixture
def unmake(whole: Ran, recipe: Path) -> Callable[[str], Path]:
    """A copy of the whole run in which one stage has yet to be done; its folder."""

    def copy(stage: str) -> Path:
        run_dir = recipe.parent / "run"
        shutil.copytree(whole.run_dir, run_dir, symlinks=True)
        shutil.rmtree(micro.artifact(run_dir, stage))
        return run_dir

    return copy
