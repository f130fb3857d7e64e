"""Run a study: its recipe in a folder that several processes may share, then its statistics, table and page."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from smallwit.console.numbers import human_flops, human_seconds
from smallwit.console.terminal import Terminal
from smallwit.errors import UserError
from smallwit.network import hub
from smallwit.pipeline import reading
from smallwit.pipeline.preflight import check_recipe
from smallwit.pipeline.runs import shared_run
from smallwit.pipeline.smoke import smoke_recipe
from smallwit.recipe.stage import Stage
from smallwit.report.load import load_run
from smallwit.report.study_table import print_study
from smallwit.study.expand import ExpandedStudy, read_study
from smallwit.study.exports import write_study
from smallwit.study.live import LiveTable
from smallwit.study.rates import in_flops
from smallwit.study.results import study_results


@dataclass(frozen=True)
class OpenedStudy:
    """A checked study and the folders that it works in."""

    expanded: ExpandedStudy
    run_dir: Path
    data_dir: Path | None


def open_study(
    path: Path,
    overrides: Sequence[str],
    run_dir: Path | None,
    data_dir: Path | None,
    *,
    smoke: bool = False,
    dry: bool = False,
) -> OpenedStudy:
    """Read and check a study. Its folder is `runs/NAME`, of a smoke run `runs/NAME-smoke`, unless given.

    A budget of time becomes FLOPs, for which this machine is measured. With `dry` no data is read to check it, and
    nothing is written into the folder.

    Raises `UserError` for what is wrong in the study, the base recipe, or on this machine.
    """
    expanded = read_study(path, overrides)
    run_dir = run_dir or Path("runs") / f"{expanded.study.name}{'-smoke' if smoke else ''}"
    hub.load_pins(run_dir, only=True)
    check_recipe(expanded.recipe, expanded.base, data_dir, lines=expanded.lines, read_data=not dry)
    if smoke:
        recipe = smoke_recipe(expanded.recipe)
        study = expanded.study.model_copy(update={"name": recipe.name, "seeds": recipe.seeds})
        expanded = replace(expanded, study=study, recipe=recipe)
    else:
        expanded = in_flops(expanded, run_dir, data_dir, keep=not dry)
    return OpenedStudy(expanded, run_dir, data_dir)


def plan_lines(opened: OpenedStudy) -> Iterator[str]:
    """Yield the stages and the cost of each pipeline, then what the stages read. Trains and downloads no model."""
    study, recipe, rates = opened.expanded.study, opened.expanded.recipe, opened.expanded.rates
    for arm in opened.expanded.arms:
        stages = opened.expanded.own_stages(arm)
        yield f"{arm.name}: {', '.join(_spending(stage, rates.get(stage.name)) for stage in stages)}"
    once = len(recipe.shared_stages)
    yield f"{once} stages once, {len(recipe.stages) - once} for {study.seeds} seeds"
    yield from reading.plan_lines(recipe, opened.expanded.base, opened.data_dir)


def _spending(stage: Stage, rate: float | None) -> str:
    """Return a stage with its FLOPs and, at a known rate, the time that they take."""
    flops = stage.declared_flops
    if flops is None:
        return stage.name
    return f"{stage.name} {human_flops(flops)}" + (f" in {human_seconds(flops / rate)}" if rate else "")


def run_study(
    opened: OpenedStudy, *, adopt: Sequence[str] = (), exact: bool = False, console: Console | None = None
) -> dict[str, object]:
    """Compute what a study lacks, write its files, print its table and advice, and return the content of study.json.

    Raises as `pipeline.runs.run` does, and `UserError` if no problem has a verdict of every pipeline.
    """
    expanded, console = opened.expanded, console or Terminal()
    with shared_run(
        expanded.recipe,
        base=expanded.base,
        run_dir=opened.run_dir,
        data_dir=opened.data_dir,
        console=console,
        live=LiveTable(expanded),
        adopt=adopt,
        exact=exact,
    ):
        try:
            results = study_results(expanded, load_run(opened.run_dir))
        except ValueError as error:
            raise UserError(f"study {expanded.study.name}: {error}; measure more problems") from error
        write_study(opened.run_dir, results)
    print_study(results, opened.run_dir, console)
    return results
