"""`smallwit gc`: what a run's recipe no longer names, listed or deleted."""

import re
from pathlib import Path
from typing import Annotated

import typer

from smallwit.cli.app import SET_UP, app
from smallwit.console.sanitize import say
from smallwit.errors import UserError
from smallwit.storage.paths import path_of

_UNITS = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


@app.command(rich_help_panel=SET_UP)
def gc(
    run_dir: Annotated[
        Path, typer.Argument(metavar="RUN_DIR", parser=path_of, help="A run's folder, as runs/quickstart.")
    ],
    delete: Annotated[bool, typer.Option("--delete", help="Delete what is listed.")] = False,
    keep: Annotated[
        str | None,
        typer.Option(
            "--keep", metavar="SIZE", help="List only the oldest artifacts, until the others take less, as 20GB."
        ),
    ] = None,
) -> None:
    """List what a run keeps of other keys.

    These are artifacts, checkpoints, samples and journals that its last recipe does not name. What it names stays.
    """
    size = None if keep is None else _bytes(keep)
    from smallwit.console.numbers import human_bytes, human_seconds
    from smallwit.pipeline.gc import collect

    found = collect(run_dir, delete=delete, keep=size)
    for one in found:
        place = one.paths[0].relative_to(run_dir)
        say(f"{one.stage}: {one.what}, {human_bytes(one.size)}, {human_seconds(one.age)} old: {place}")
    total = human_bytes(sum(one.size for one in found))
    if not found:
        say(f"{run_dir}: keeps nothing that its recipe does not name")
    else:
        say(f"{total} deleted" if delete else f"{total} in all; --delete removes them")


def _bytes(text: str) -> int:
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([kMGT]?B)", text)
    if found is None:
        raise UserError(f"--keep {text}: is no size; give a number and a unit, as 20GB or 500MB")
    return int(float(found[1]) * _UNITS[found[2]])
