"""`smallwit watch`: the report of a run in a browser, while the run goes on."""

from pathlib import Path
from typing import Annotated

import typer

from smallwit.cli.app import MEASURE, app
from smallwit.storage.paths import path_of


@app.command(rich_help_panel=MEASURE)
def watch(
    run_dir: Annotated[
        Path, typer.Argument(metavar="RUN_DIR", parser=path_of, help="A run's folder, as runs/quickstart.")
    ],
    port: Annotated[int, typer.Option("--port", metavar="N", min=1, max=65535, help="Port to listen on.")] = 8080,
) -> None:
    """Serve a run's report on this machine, with what there is so far, until Ctrl-C."""
    from smallwit.report.watch import watch as serve_report

    serve_report(run_dir, port)
