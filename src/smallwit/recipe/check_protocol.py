"""What the check of a whole recipe offers to the checks of its parts."""

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from smallwit.errors import UserError

if TYPE_CHECKING:
    from smallwit.recipe.schema import Recipe
    from smallwit.recipe.yaml import Lines

Place = tuple[str | int, ...]
"""Where something is in a recipe: keys and indices from the top, as `("stages", 0, "steps", 1)`."""


class Check(Protocol):
    """The check of a whole recipe; see `recipe.check`."""

    recipe: "Recipe"
    base: Path
    lines: "Lines"

    def refuse(self, what: str, *place: str | int) -> UserError:
        """Return an error with the file and the line of `place`, to be raised."""
        ...

    def model_before(self, role: str, name: str, *place: str | int, weights: bool = True) -> None:
        """Check that `name` is a model, or a train stage before that at `place`; `weights`: one with local weights.

        Raises `UserError` otherwise.
        """
        ...

    def rows_before(self, role: str, name: str, *place: str | int) -> None:
        """Check that `name` is a stage that makes rows, before the stage at `place`. Raises `UserError` otherwise."""
        ...
