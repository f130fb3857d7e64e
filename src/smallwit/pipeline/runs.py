"""Run a recipe: all of it, or only its teacher log-probs or datasets."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from smallwit.console.interrupts import terminable
from smallwit.console.terminal import Terminal
from smallwit.device import resolve_device, resolve_dtype
from smallwit.errors import UserError
from smallwit.evaluation.scores import scores
from smallwit.evaluation.scores_table import print_scores
from smallwit.evaluation.stored import read_evaluation
from smallwit.network import hub
from smallwit.pipeline.plan import Plan, plan_for
from smallwit.pipeline.run_folder import RunFolder
from smallwit.pipeline.scheduler import Live, Scheduler, StageFailed
from smallwit.pipeline.smoke import smoke_recipe
from smallwit.recipe.file import dump_recipe
from smallwit.recipe.schema import Recipe
from smallwit.report.html import write_report
from smallwit.report.table import print_summary
from smallwit.storage.artifacts import disk_trouble, write_atomically
from smallwit.suggestions import hint
from smallwit.training.tracking import check_trackers


def run(
    recipe: Recipe,
    *,
    base: Path,
    run_dir: Path,
    data_dir: Path | None,
    smoke: bool = False,
    track: Sequence[str] = (),
    console: Console | None = None,
    adopt: Sequence[str] = (),
    exact: bool = False,
    only: Sequence[str] = (),
) -> dict[str, Any]:
    """Compute what a recipe lacks, write and print `results.json` and `report.html`, and return the results.

    `track` names the trackers that get the metrics of train stages. `adopt` names stages whose work of another key is
    used (`all` for every one); with `exact` unfinished work that was made with other versions or threads is refused.
    `only` names stages and models: they are made, with what they need, and measured. Their scores are printed, and
    there are no results, which are of a whole recipe.

    Raises `UserError` for what the user can fix, `StageFailed` when a stage fails or the disk is full, and
    `KeyboardInterrupt` on Ctrl-C or SIGTERM. Published artifacts stay, and a rerun resumes from there.
    """
    check_trackers(track)
    if all(stage.standalone for stage in recipe.stages):
        raise UserError(f"recipe {recipe.name}: there is nothing to measure; use smallwit data build")
    console = console or Terminal()
    recipe = smoke_recipe(recipe) if smoke else recipe
    with _occupied_scheduler(recipe, base, run_dir, data_dir, console, adopt, exact, tuple(track)) as scheduler:
        if only:
            scheduler.run(_wanted(scheduler.plan, only))
            _print_measured(scheduler, only, console)
            return {}
        results = _completed(scheduler)
    if results["models"]:
        print_summary(results, scheduler.folder.path / "report.html", console)
    else:
        _print_unmeasured(scheduler, console)
    return results


def _wanted(plan: Plan, only: Sequence[str]) -> set[str]:
    """Return the names of the nodes that are asked for, with those that they need."""
    known = dict.fromkeys(node.stage.name for node in plan.nodes.values())
    for name in only:
        if name not in known:
            raise UserError(f"--only {name}: the recipe neither makes nor measures it; {hint(name, known)}")
    return plan.needed_for(node.name for node in plan.nodes.values() if node.stage.name in only)


def _print_measured(scheduler: "Scheduler", only: Sequence[str], console: Console) -> None:
    """Print the scores of the stages and models that were asked for, as `smallwit eval` does."""
    labels = [label for label, node in scheduler.plan.evaluations.items() if node.stage.name in only]
    found = {label: read_evaluation(f"{scheduler.folder.path}:{label}") for label in labels}
    if found:
        scored = {label: {task: scores(rows) for task, rows in one.rows.items()} for label, one in found.items()}
        signed = {label: {task: p["signature"] for task, p in one.protocols.items()} for label, one in found.items()}
        print_scores(scored, signed, console)


@contextmanager
def shared_run(
    recipe: Recipe,
    *,
    base: Path,
    run_dir: Path,
    data_dir: Path | None,
    console: Console,
    live: Live,
    adopt: Sequence[str] = (),
    exact: bool = False,
) -> Iterator[dict[str, Any]]:
    """Compute what a recipe lacks together with other processes on the same folder, and yield the results.

    Each node is computed by one process; `live` returns what a terminal shows meanwhile. All processes end when
    everything is there. In the block the folder is this process' alone, with `results.json` and `report.html`.

    Raises as `run` does.
    """
    with _occupied_scheduler(recipe, base, run_dir, data_dir, console, adopt, exact, live=live) as scheduler:
        yield _completed(scheduler)


def _completed(scheduler: "Scheduler") -> dict[str, Any]:
    scheduler.run(set(scheduler.plan.nodes))
    results = scheduler.finish()
    write_report(scheduler.folder.path)
    return results


def _print_unmeasured(scheduler: "Scheduler", console: Console) -> None:
    """Print where the models of a recipe without tasks are, and how to measure them."""
    console.print("nothing was measured: the recipe has no tasks; `smallwit eval FOLDER` measures a model")
    for node in scheduler.plan.nodes.values():
        if node.stage.makes == "model":
            place = scheduler.folder.artifact(node)
            console.print(f"{node.name}: {place}", markup=False, highlight=False, soft_wrap=True)


@dataclass(frozen=True)
class Store:
    """The store of a teacher_logprobs stage: its folder, completion tokens and bytes."""

    stage: str
    folder: Path
    tokens: int
    size: int


def store_teacher_logprobs(
    recipe: Recipe,
    *,
    base: Path,
    run_dir: Path,
    data_dir: Path | None,
    console: Console | None = None,
    adopt: Sequence[str] = (),
    exact: bool = False,
) -> list[Store]:
    """Compute the teacher_logprobs stages of a recipe and what they need, and return their stores.

    Raises as `run` does, and `UserError` for a recipe without a teacher_logprobs stage.
    """
    stores = []
    for name, folder, manifest in _stages_alone(
        recipe, "teacher_logprobs", base, run_dir, data_dir, console, adopt, exact
    ):
        size = sum(file["bytes"] for file in manifest["files"].values())
        stores.append(Store(name, folder, manifest["tokens"], size))
    return stores


def build_datasets(
    recipe: Recipe,
    *,
    base: Path,
    run_dir: Path,
    data_dir: Path | None,
    console: Console | None = None,
    adopt: Sequence[str] = (),
    exact: bool = False,
) -> list[tuple[str, Path]]:
    """Build the datasets of a recipe and what they need, and return their names and folders.

    Raises as `run` does, and `UserError` for a recipe without a dataset stage.
    """
    made = _stages_alone(recipe, "dataset", base, run_dir, data_dir, console, adopt, exact)
    return [(name, folder) for name, folder, _ in made]


def _stages_alone(
    recipe: Recipe,
    kind: str,
    base: Path,
    run_dir: Path,
    data_dir: Path | None,
    console: Console | None,
    adopt: Sequence[str],
    exact: bool,
) -> list[tuple[str, Path, dict[str, Any]]]:
    """Compute the stages of a kind for all seeds; return the name, artifact folder and manifest of each."""
    if not any(stage.kind == kind for stage in recipe.stages):
        raise UserError(f"recipe {recipe.name}: has no {kind} stage; add one (kind: {kind}), or use smallwit run")
    with _occupied_scheduler(recipe, base, run_dir, data_dir, console or Terminal(), adopt, exact) as scheduler:
        nodes = [node for node in scheduler.plan.nodes.values() if node.stage.kind == kind]
        scheduler.run(scheduler.plan.needed_for(node.name for node in nodes))
    return [(node.name, scheduler.folder.artifact(node), scheduler.manifests[node.name]) for node in nodes]


def _resolved(run_dir: Path) -> Path:
    try:
        return run_dir.resolve()
    except (OSError, RuntimeError) as error:
        raise UserError(f"--run-dir {run_dir}: cannot be resolved ({error}); name another folder") from error


@contextmanager
def _occupied_scheduler(
    recipe: Recipe,
    base: Path,
    run_dir: Path,
    data_dir: Path | None,
    console: Console,
    adopt: Sequence[str],
    exact: bool,
    track: tuple[str, ...] = (),
    live: Live | None = None,
) -> Iterator["Scheduler"]:
    """Yield the scheduler of a recipe while its run folder is locked; with `live` it is shared with other processes."""
    folder = RunFolder(_resolved(run_dir))
    try:
        with folder.occupy(shared=live is not None), terminable():
            hub.load_pins(folder.path)
            # Looking for a GPU needs torch, which is slow to import.
            device = resolve_device(recipe.device) if recipe.models else "cpu"
            dtype = resolve_dtype(device, recipe.dtype)
            plan = plan_for(recipe, base, data_dir, device, dtype)
            write_atomically(folder.path / "recipe.resolved.yaml", dump_recipe(recipe))
            folder.write_plan(plan)
            hub.save_pins(folder.path)
            yield Scheduler(plan, folder, base.resolve(), data_dir, device, dtype, console, adopt, exact, track, live)
    except OSError as error:
        trouble = disk_trouble(error)
        if trouble is None:
            raise
        raise StageFailed(f"{folder.path}: {trouble}; free some space and run the same command again") from error
