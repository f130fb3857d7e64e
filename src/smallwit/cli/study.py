"""`smallwit study`: many pipelines with the same budget and seeds, and what their scores advise."""

from typing import Annotated

import typer

from smallwit.cli.app import TRAIN, app
from smallwit.cli.options import (
    Adopt,
    AllowUnsafeCode,
    DataDir,
    Exact,
    Offline,
    Overrides,
    RecipeFile,
    RunDir,
    apply_safety,
    data_dir_of,
)


@app.command(rich_help_panel=TRAIN)
def study(
    study: RecipeFile,
    run_dir: RunDir = None,
    data_dir: DataDir = None,
    overrides: Overrides = None,
    offline: Offline = False,
    allow_unsafe_code: AllowUnsafeCode = False,
    adopt: Adopt = None,
    exact: Exact = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the study as one recipe with every default filled in, and stop.")
    ] = False,
    plan: Annotated[
        bool, typer.Option("--plan", help="Print what each pipeline costs, and what each stage reads, and stop.")
    ] = False,
    smoke: Annotated[
        bool, typer.Option("--smoke", help="Take two steps of every stage with two seeds, to see that all fits.")
    ] = False,
) -> None:
    """Compare pipelines that have one budget, or go on with that.

    The same command in several processes, also of machines that share the folder, divides the work.
    """
    apply_safety(offline, allow_unsafe_code)
    from smallwit.study.run import open_study, plan_lines, run_study

    data_dir = data_dir_of(data_dir)
    opened = open_study(study, overrides or (), run_dir, data_dir, smoke=smoke, dry=dry_run or plan)
    if dry_run:
        from smallwit.recipe.file import dump_recipe

        print(dump_recipe(opened.expanded.recipe), end="")
        return

    if plan:
        from smallwit.console.sanitize import say

        for line in plan_lines(opened):
            say(line)
        return

    run_study(opened, adopt=adopt or (), exact=exact)
