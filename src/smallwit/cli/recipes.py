"""The first steps of every command that works on a recipe."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from smallwit.cli.options import apply_safety, data_dir_of

if TYPE_CHECKING:
    from smallwit.recipe.schema import Recipe


@dataclass(frozen=True)
class LoadedRecipe:
    """A checked recipe and the folders that it works in: the arguments of `pipeline.run` and its siblings."""

    recipe: "Recipe"
    base: Path
    run_dir: Path
    data_dir: Path | None
    adopt: tuple[str, ...] = ()
    exact: bool = False


def open_recipe(
    file: Path,
    overrides: Sequence[str] | None,
    run_dir: Path | None,
    data_dir: Path | None,
    *,
    offline: bool,
    allow_unsafe_code: bool,
    adopt: Sequence[str] | None = None,
    exact: bool = False,
    read_data: bool = True,
    suffix: str = "",
) -> LoadedRecipe:
    """Load and check a recipe. The run folder is `runs/NAME` and `suffix` unless given. Raises `UserError`."""
    apply_safety(offline, allow_unsafe_code)
    from smallwit.network import hub
    from smallwit.pipeline.preflight import check_recipe
    from smallwit.recipe.file import read_recipe

    data_dir = data_dir_of(data_dir)
    recipe, lines = read_recipe(file, overrides or ())
    run_dir = run_dir or Path("runs") / f"{recipe.name}{suffix}"
    hub.load_pins(run_dir, only=True)
    check_recipe(recipe, file.parent, data_dir, lines=lines, read_data=read_data)
    return LoadedRecipe(recipe, file.parent, run_dir, data_dir, tuple(adopt or ()), exact)
