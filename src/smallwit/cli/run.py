"""`smallwit run`: a recipe from its first stage to its report."""

from typing import Annotated

import typer

from smallwit.cli.app import TRAIN, app
from smallwit.cli.options import Adopt, AllowUnsafeCode, DataDir, Exact, Offline, Overrides, RecipeFile, RunDir
from smallwit.cli.plan import show_plan
from smallwit.cli.recipes import open_recipe


@app.command(rich_help_panel=TRAIN)
def run(
    recipe: RecipeFile,
    run_dir: RunDir = None,
    data_dir: DataDir = None,
    overrides: Overrides = None,
    offline: Offline = False,
    allow_unsafe_code: AllowUnsafeCode = False,
    adopt: Adopt = None,
    exact: Exact = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the recipe with every default filled in, and stop.")
    ] = False,
    plan: Annotated[bool, typer.Option("--plan", help="Print what `smallwit plan` prints, and stop.")] = False,
    smoke: Annotated[
        bool, typer.Option("--smoke", help="Take two steps of every stage, to see that all fits.")
    ] = False,
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only", metavar="STAGE", help="Make and measure this stage or model, print its score, stop. Repeatable."
        ),
    ] = None,
    track: Annotated[
        list[str] | None,
        typer.Option(
            "--track",
            metavar="TRACKER",
            help="Also write metrics for a tracker on this machine: tensorboard or trackio. Repeatable.",
        ),
    ] = None,
) -> None:
    """Run a recipe, or go on with it."""
    loaded = open_recipe(
        recipe,
        overrides,
        run_dir,
        data_dir,
        offline=offline,
        allow_unsafe_code=allow_unsafe_code,
        adopt=adopt,
        exact=exact,
        read_data=not (dry_run or plan),
        suffix="-smoke" if smoke else "",
    )
    if dry_run:
        from smallwit.recipe.file import dump_recipe

        print(dump_recipe(loaded.recipe), end="")
        return

    if plan:
        show_plan(loaded)
        return

    from smallwit.pipeline import runs as pipeline

    pipeline.run(**vars(loaded), smoke=smoke, track=track or (), only=only or ())
