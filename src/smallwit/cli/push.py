"""`smallwit push`: a model of a run goes to the Hugging Face hub, with its card."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from smallwit.cli.app import USE, app
from smallwit.cli.options import Offline, apply_safety
from smallwit.errors import UserError
from smallwit.storage.paths import path_of


@app.command(rich_help_panel=USE)
def push(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A stage of a run, as runs/NAME:STAGE.")],
    repository: Annotated[str, typer.Argument(metavar="REPO", help="Repository of the hub, as ORG/NAME.")],
    private: Annotated[bool, typer.Option("--private", help="Make a new repository a private one.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before the upload.")] = False,
    card_only: Annotated[
        Path | None,
        typer.Option("--card-only", metavar="FILE", parser=path_of, help="Write the card into a file, send nothing."),
    ] = None,
    offline: Offline = False,
) -> None:
    """Upload a model to the Hugging Face hub, with a card: scores, data, costs and recipe."""
    if offline and card_only is None:
        raise UserError("--offline forbids the upload; write the card alone by --card-only")
    if not (yes or card_only is not None or sys.stdin.isatty()):
        raise UserError("push asks before it sends, and there is no terminal; give --yes")
    apply_safety(offline, allow_unsafe_code=False)
    from smallwit.use.push import push as upload

    agreed = (lambda question: True) if yes else _ask
    upload(model, repository, private=private, card_only=card_only, agreed=agreed)


def _ask(question: str) -> bool:
    try:
        return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False
