"""`smallwit report`: the report of a run that has ended, written again."""

import json
from pathlib import Path
from typing import Annotated

import typer

from smallwit.cli.app import MEASURE, app
from smallwit.errors import UserError
from smallwit.storage.paths import path_of


@app.command(rich_help_panel=MEASURE)
def report(
    run_dir: Annotated[
        Path, typer.Argument(metavar="RUN_DIR", parser=path_of, help="A run's folder, as runs/quickstart.")
    ],
) -> None:
    """Write a run's report again."""
    results = run_dir / "results.json"
    if not results.is_file():
        raise UserError(f"{run_dir}: holds no results.json; name the folder of a run that has ended")
    from smallwit.console.terminal import Terminal
    from smallwit.report.html import write_report
    from smallwit.report.table import print_summary

    write_report(run_dir)
    print_summary(json.loads(results.read_text(encoding="utf-8")), run_dir / "report.html", Terminal())
