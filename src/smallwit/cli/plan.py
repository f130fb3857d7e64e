"""`smallwit plan`: what a recipe is going to read and to need, before anything runs."""

import sys
from dataclasses import asdict
from typing import Annotated

import typer

from smallwit.cli.app import TRAIN, app
from smallwit.cli.options import DataDir, Offline, Overrides, RecipeFile, RunDir
from smallwit.cli.recipes import LoadedRecipe, open_recipe


@app.command(rich_help_panel=TRAIN)
def plan(
    recipe: RecipeFile,
    run_dir: RunDir = None,
    data_dir: DataDir = None,
    overrides: Overrides = None,
    offline: Offline = False,
    device: Annotated[
        str, typer.Option("--device", metavar="NAME", help="A device of the table, as H100; this is this machine.")
    ] = "this",
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Measure this machine's speed again: at most a minute.")
    ] = False,
    pass_rate: Annotated[
        float | None,
        typer.Option(
            "--pass-rate", metavar="P", min=0, max=1, help="Share of right completions, 0 to 1, if none is measured."
        ),
    ] = None,
) -> None:
    """Show what a recipe reads, needs and costs, before it runs."""
    loaded = open_recipe(
        recipe, overrides, run_dir, data_dir, offline=offline, allow_unsafe_code=False, read_data=False
    )
    show_plan(loaded, device, calibrate, pass_rate)


def show_plan(
    loaded: LoadedRecipe, device: str = "this", calibrate: bool = False, pass_rate: float | None = None
) -> None:
    """Print the plan of a recipe. Raises `UserError` for an unknown device, and for data that cannot be read."""
    from smallwit.console.sanitize import say
    from smallwit.console.terminal import Terminal
    from smallwit.device import available_memory, resolve_device, resolve_dtype
    from smallwit.pipeline.forecast import Planner
    from smallwit.pipeline.forecast_text import print_forecasts
    from smallwit.pipeline.plan import plan_for
    from smallwit.pipeline.rates import MeasuredRates, TableRates
    from smallwit.pipeline.reading import plan_lines
    from smallwit.pipeline.run_folder import RunFolder

    recipe, base, data_dir = loaded.recipe, loaded.base, loaded.data_dir
    table = TableRates(device) if device != "this" else None
    for line in plan_lines(recipe, base, data_dir):
        say(line)
    if table is None:
        place = resolve_device(recipe.device) if recipe.models else "cpu"
        dtype, available = resolve_dtype(place, recipe.dtype), float(available_memory(place))
    else:
        place, available = "cuda", table.memory
        dtype = table.dtype if recipe.dtype == "auto" else recipe.dtype
    made = plan_for(recipe, base, data_dir, place, dtype)
    planner = Planner(made, RunFolder(loaded.run_dir), base.resolve(), data_dir, place, dtype)
    with planner.estimated():
        rates = table or MeasuredRates(place)
        if isinstance(rates, MeasuredRates):
            rates.measure(planner.work(), again=calibrate, say=lambda text: say(text, sys.stderr))
    if isinstance(rates, MeasuredRates):
        rates.keep({made.nodes[each.name].key: asdict(each) for each in planner.forecasts(rates)})
    print_forecasts(planner, rates, available, pass_rate, Terminal())
