"""`smallwit compare`: two evaluations, problem by problem."""

from pathlib import Path
from typing import Annotated

import typer

from smallwit.cli.app import MEASURE, app
from smallwit.storage.paths import path_of

_WHERE = "A folder of smallwit eval, or a run's stage as runs/NAME:STAGE."


@app.command(rich_help_panel=MEASURE)
def compare(
    a: Annotated[str, typer.Argument(metavar="A", help=_WHERE)],
    b: Annotated[str, typer.Argument(metavar="B", help=_WHERE)],
    json: Annotated[
        Path | None, typer.Option("--json", metavar="OUT", parser=path_of, help="Write the numbers as JSON.")
    ] = None,
    problems: Annotated[
        Path | None,
        typer.Option("--problems", metavar="OUT", parser=path_of, help="Write won, lost and tied problems as JSONL."),
    ] = None,
    read: Annotated[
        Path | None,
        typer.Option("--read", metavar="OUT", parser=path_of, help="Write 50 answers of each that miss, as text."),
    ] = None,
    across_protocols: Annotated[
        bool,
        typer.Option("--across-protocols", help="Go on although the protocols differ: no fair comparison."),
    ] = False,
) -> None:
    """Compare two evaluations problem by problem.

    Prints A - B with its interval, tests, the problems won and lost, and why answers scored less than 1.
    """
    from smallwit.console.terminal import Terminal
    from smallwit.evaluation import compare as comparison

    outputs = {"json_out": json, "problems_out": problems, "read_out": read}
    comparison.compare(a, b, Terminal(), **outputs, across_protocols=across_protocols)
