"""`smallwit schema`: the JSON schema of recipes, which editors complete and check YAML by."""

import json
from pathlib import Path
from typing import Annotated

import typer

from smallwit.cli.app import SET_UP, app
from smallwit.errors import UserError
from smallwit.storage.paths import path_of


@app.command(rich_help_panel=SET_UP)
def schema(
    out: Annotated[
        Path | None, typer.Argument(metavar="OUT", parser=path_of, help="The file; standard output by default.")
    ] = None,
) -> None:
    """Write the JSON schema of recipes, for editors.

    A recipe names it in its first line: # yaml-language-server: $schema=PATH
    """
    text = recipe_schema()
    if out is None:
        print(text, end="")
        return
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror}); name another file") from error


def recipe_schema() -> str:
    """Return the JSON schema of recipes, with the keys as they stand in YAML."""
    from smallwit.recipe.schema import Recipe

    return json.dumps(Recipe.model_json_schema(by_alias=True), indent=1, ensure_ascii=False) + "\n"
