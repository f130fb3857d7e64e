"""`smallwit grade`: files of responses, graded by the verifiers of training and evaluation."""

from pathlib import Path
from typing import Annotated

import typer

from smallwit.cli.app import MEASURE, app, group
from smallwit.cli.options import AllowUnsafeCode
from smallwit.storage.paths import path_of

grade = group("Grade a file of responses. Run it again to go on after an interrupt.")
app.add_typer(grade, name="grade", rich_help_panel=MEASURE)

_Source = Annotated[Path, typer.Argument(metavar="IN", parser=path_of, help="The rows, as JSONL.")]
_Out = Annotated[Path, typer.Argument(metavar="OUT", parser=path_of, help="The same rows with verdicts, as JSONL.")]
_Workers = Annotated[
    int | None,
    typer.Option("--workers", metavar="N", min=1, help="Processes at a time, by default the number of cores."),
]


@grade.command()
def math(
    source: _Source,
    out: _Out,
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", help="CPU time of the formulas of one answer.")
    ] = 3.0,
    workers: _Workers = None,
) -> int:
    """Grade JSONL rows {"id", "gold", "response"}."""
    from smallwit.evaluation import grade as grading

    return grading.grade("math", source, out, timeout, workers)


@grade.command()
def code(
    source: _Source,
    out: _Out,
    timeout: Annotated[float, typer.Option("--timeout", metavar="SECONDS", help="CPU time of one program.")] = 10.0,
    workers: _Workers = None,
    allow_unsafe_code: AllowUnsafeCode = False,
) -> int:
    """Grade JSONL rows {"id", "prompt", "entry_point", "response", "tests", "setup"?}."""
    from smallwit.evaluation import grade as grading
    from smallwit.verify import consent

    if allow_unsafe_code:
        consent.allow()
    return grading.grade("code", source, out, timeout, workers)
