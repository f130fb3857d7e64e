"""Turn a budget of time into FLOPs of each stage, by rates that the folder of the study keeps."""

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from smallwit.console.sanitize import say
from smallwit.device import resolve_device, resolve_dtype
from smallwit.errors import UserError
from smallwit.pipeline.forecast import Planner
from smallwit.pipeline.plan import plan_for
from smallwit.pipeline.rates import MeasuredRates
from smallwit.pipeline.run_folder import RunFolder
from smallwit.recipe.schema import Recipe
from smallwit.recipe.stage import Stage
from smallwit.storage.artifacts import content_key, read_sealed, write_sealed
from smallwit.study.expand import ExpandedStudy
from smallwit.study.schema import NOMINAL_RATE

RATES = "rates.json"


def in_flops(expanded: ExpandedStudy, run_dir: Path, data_dir: Path | None, *, keep: bool) -> ExpandedStudy:
    """Return the study whose stages have the FLOPs of their seconds, at the rates of `rates.json` in its folder.

    What is not there is measured on this machine and, with `keep`, written there: so the same work is done when the
    study goes on, in another process, and on another machine. A study without a budget of time is returned as it is.

    Raises `UserError` for a stage whose rate cannot be known before it has run.
    """
    stages = expanded.timed
    if not stages:
        return expanded
    folder, keys = RunFolder(run_dir), {stage.name: _key(stage, expanded.recipe) for stage in stages}
    # The first of several processes has the folder alone, and the others find what it has measured.
    with folder.occupy(shared=True) if keep else nullcontext():
        known = _read(run_dir)
        missing = [stage for stage in stages if keys[stage.name] not in known]
        if missing:
            measured = measured_rates(expanded, folder, data_dir, [stage.name for stage in missing])
            known |= {keys[name]: {"stage": name, "flops_per_second": rate} for name, rate in measured.items()}
            if keep:
                write_sealed(run_dir / RATES, {"rates": known})
    rates = {name: float(known[key]["flops_per_second"]) for name, key in keys.items()}
    bounded = [_bounded(each, rates[each.name]) if each.name in rates else each for each in expanded.recipe.stages]
    return replace(expanded, recipe=expanded.recipe.model_copy(update={"stages": bounded}), rates=rates)


def _bounded(stage: Stage, rate: float) -> Stage:
    """Return the stage with the FLOPs of its seconds."""
    seconds = (stage.declared_flops or 0.0) / NOMINAL_RATE
    return stage.model_copy(update={"flops": float(f"{seconds * rate:.4g}")})


def _key(stage: Stage, recipe: Recipe) -> str:
    """Return what a rate is known by: the settings of its stage but for the budget, and the models."""
    own = stage.model_dump(mode="json", exclude={"name", "flops"})
    return content_key({"stage": own, "models": recipe.model_dump(mode="json", include={"models"})})


def _read(run_dir: Path) -> dict[str, Any]:
    path = run_dir / RATES
    if not path.exists():
        return {}
    try:
        return dict(read_sealed(path)["rates"])
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path}: cannot be read ({error}); remove it, and all is measured and made again") from error


def measured_rates(
    expanded: ExpandedStudy, folder: RunFolder, data_dir: Path | None, names: Sequence[str]
) -> dict[str, float]:
    """Return the FLOP/s of these stages on this machine, as `smallwit plan` measures them."""
    # One seed stands for all, and what measures the models is not in the budget.
    evaluation = expanded.recipe.evaluation.model_copy(update={"stages": []})
    recipe = expanded.recipe.model_copy(update={"seeds": 1, "evaluation": evaluation})
    device = resolve_device(recipe.device)
    dtype = resolve_dtype(device, recipe.dtype)
    plan = plan_for(recipe, expanded.base, data_dir, device, dtype)
    planner, rates = Planner(plan, folder, expanded.base.resolve(), data_dir, device, dtype), MeasuredRates(device)
    with planner.estimated():
        unknown = next((name for name in names if name not in planner.estimates), None)
        if unknown is not None:
            what = "its time cannot be told before it has run (a server, or rows that are not there yet)"
            raise UserError(f"stage {unknown}: {what}; give budget.flops")
        work = [work for name in names for work in planner.estimates[name].work]
        rates.measure(work, again=False, say=lambda text: say(text, sys.stderr))
    rates.keep({})
    found = [each for each in planner.forecasts(rates) if each.name in names]
    return {each.name: each.flops / each.seconds for each in found if each.seconds}
