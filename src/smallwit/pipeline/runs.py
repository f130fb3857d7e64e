"""The conductor: runs what a recipe asks for and is not there yet, side by side where it can, and sums up."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

from rich.console import Console

from smallwit.console.progress import RunProgress
from smallwit.console.terminal import Terminal
from smallwit.device import cores, resolve_device, resolve_dtype
from smallwit.errors import RunFailed, UserError
from smallwit.pipeline.costs import declared_flops, paid_stages, remaining_flops
from smallwit.pipeline.job import Job
from smallwit.pipeline.ledger import Entry, Ledger
from smallwit.pipeline.plan import Node, Plan, make_plan
from smallwit.pipeline.processes import (
    FORK_SERVER_LOST,
    MemoryWatch,
    Message,
    NotStarted,
    Running,
    fork_server,
    start,
    stop,
    terminable,
    wait_for_news,
)
from smallwit.pipeline.results import summarise, validation_score
from smallwit.pipeline.run_folder import RunFolder
from smallwit.pipeline.smoke import smoke_recipe
from smallwit.pipeline.threads import fits, threads_by_model
from smallwit.recipe.file import dump_recipe
from smallwit.recipe.schema import Recipe, TrainStage
from smallwit.report.format import human_seconds
from smallwit.report.html import write_report
from smallwit.report.table import print_summary
from smallwit.storage.artifacts import METRICS, disk_trouble, read_manifest, write_atomically
from smallwit.storage.jsonl import finite


class StageFailed(RunFailed):
    """A stage could not be finished. The message says which and why."""


def run(
    recipe: Recipe,
    *,
    base: Path,
    run_dir: Path,
    data_dir: Path | None,
    smoke: bool = False,
    console: Console | None = None,
) -> dict[str, Any]:
    """Compute what is missing of a recipe, then write and show `results.json` and `report.html`; returns the results.

    Raises `UserError` for what the user can mend, `StageFailed` when a stage fails or the disk is full, and
    `KeyboardInterrupt` when stopped, by SIGTERM too: what is published by then stays, and a rerun goes on from there.
    """
    if all(stage.kind == "dataset" for stage in recipe.stages):
        raise UserError(f"recipe {recipe.name}: there is nothing to measure; use smallwit data build")
    console = console or Terminal()
    recipe = smoke_recipe(recipe) if smoke else recipe
    with _at_work(recipe, base, run_dir, data_dir, console) as conductor:
        conductor.run(set(conductor.plan.nodes))
        results = conductor.finish()
        write_report(conductor.folder.path)
    if results["models"]:
        print_summary(results, conductor.folder.path / "report.html", console)
    else:
        _print_unmeasured(conductor, console)
    return results


def _print_unmeasured(conductor: "Conductor", console: Console) -> None:
    """Say where the models of a recipe without tasks are, and how to measure them."""
    console.print("nothing was measured: the recipe has no tasks; `smallwit eval FOLDER` measures a model")
    for node in conductor.plan.nodes.values():
        if node.kind == "train":
            place = conductor.folder.artifact(node)
            console.print(f"{node.name}: {place}", markup=False, highlight=False, soft_wrap=True)


@dataclass(frozen=True)
class Store:
    """What a teacher_logprobs stage has stored: its place, and the completion tokens and bytes that it holds."""

    stage: str
    folder: Path
    tokens: int
    size: int


def store_teacher_logprobs(
    recipe: Recipe, *, base: Path, run_dir: Path, data_dir: Path | None, console: Console | None = None
) -> list[Store]:
    """Compute what is missing of a recipe's teacher_logprobs stages and of what they need, and nothing else.

    Raises as `run` does, and `UserError` for a recipe without a teacher_logprobs stage.
    """
    stores = []
    for name, folder, manifest in _stages_alone(recipe, "teacher_logprobs", base, run_dir, data_dir, console):
        size = sum(file["bytes"] for file in manifest["files"].values())
        stores.append(Store(name, folder, manifest["tokens"], size))
    return stores


def build_datasets(
    recipe: Recipe, *, base: Path, run_dir: Path, data_dir: Path | None, console: Console | None = None
) -> list[tuple[str, Path]]:
    """Build what is missing of a recipe's datasets and of what they need, and nothing else; their names and folders.

    Raises as `run` does, and `UserError` for a recipe without a dataset stage.
    """
    made = _stages_alone(recipe, "dataset", base, run_dir, data_dir, console)
    return [(name, folder) for name, folder, _ in made]


def _stages_alone(
    recipe: Recipe, kind: str, base: Path, run_dir: Path, data_dir: Path | None, console: Console | None
) -> list[tuple[str, Path, dict[str, Any]]]:
    """The stages of a kind, each with its artifact's folder and manifest."""
    stages = [stage.name for stage in recipe.stages if stage.kind == kind]
    if not stages:
        raise UserError(f"recipe {recipe.name}: has no {kind} stage; add one (kind: {kind}), or use smallwit run")
    with _at_work(recipe, base, run_dir, data_dir, console or Terminal()) as conductor:
        conductor.run(conductor.plan.needed_for(stages))
    nodes = conductor.plan.nodes
    return [(name, conductor.folder.artifact(nodes[name]), conductor.manifests[name]) for name in stages]


def _resolved(run_dir: Path) -> Path:
    try:
        return run_dir.resolve()
    except (OSError, RuntimeError) as error:
        raise UserError(f"--run-dir {run_dir}: is none that can be found ({error}); name another folder") from error


@contextmanager
def _at_work(
    recipe: Recipe, base: Path, run_dir: Path, data_dir: Path | None, console: Console
) -> Iterator["Conductor"]:
    """The conductor of a recipe, in a run's folder that is its own meanwhile."""
    folder = RunFolder(_resolved(run_dir))
    try:
        with folder.occupy(), terminable():
            # To look for a GPU takes the import of torch.
            device = resolve_device(recipe.device) if recipe.models else "cpu"
            dtype = resolve_dtype(device, recipe.dtype)
            threads = _threads(recipe, base, device)
            plan = make_plan(recipe, base=base, data_dir=data_dir, device=device, dtype=dtype, threads=threads)
            write_atomically(folder.path / "recipe.resolved.yaml", dump_recipe(recipe))
            yield Conductor(plan, folder, base.resolve(), data_dir, device, dtype, console)
    except OSError as error:
        trouble = disk_trouble(error)
        if trouble is None:
            raise
        raise StageFailed(f"{folder.path}: {trouble}; free some space and run the same command again") from error


class Conductor:
    """Runs the nodes of a plan in the recipe's order: at most `recipe.workers` at a time, or as the cores allow."""

    def __init__(
        self,
        plan: Plan,
        folder: RunFolder,
        base: Path,
        data_dir: Path | None,
        device: str,
        dtype: str,
        console: Console,
    ) -> None:
        self.plan, self.folder, self.base, self.data_dir = plan, folder, base, data_dir
        self.device, self.dtype, self.console = device, dtype, console
        self.manifests: dict[str, dict[str, Any]] = {}
        self.computed: set[str] = set()
        self.ledger = Ledger(folder.path / "ledger.json")
        self.memory = MemoryWatch()

    def run(self, wanted: set[str]) -> None:
        """Find what is there, compute the rest of the nodes that are `wanted`."""
        self.folder.tidy(self.plan)
        self.manifests = self.folder.find(self.plan, lambda text: self.console.print(text, markup=False))
        for name in self.manifests:
            self.folder.show(self.plan.nodes[name], self.plan)
        waiting = [node for node in self.plan.nodes.values() if node.name in wanted - self.manifests.keys()]
        if not waiting:
            return
        self.folder.withdraw_results()
        context = fork_server()
        running: list[Running] = []
        with RunProgress(self.console) as progress:
            try:
                while waiting or running:
                    for node in self._ready(waiting):
                        if not self._has_room(node, running):
                            continue
                        waiting.remove(node)
                        progress.start(node.name)
                        self.ledger.begin(node.key)
                        running.append(self._started(node, context))
                    wait_for_news(running, 0.25)
                    self.memory.sample()
                    running = [one for one in running if not self._listen(one, progress)]
                    self.ledger.tick(self.memory.peak / 1e9, self._entries())
                    progress.tick()
            except KeyboardInterrupt:
                progress.say("stopping, what is under way is saved first; Ctrl-C again stops at once")
                raise
            finally:
                # Whatever ends this must not leave stages running behind it.
                stop(running)

    def _ready(self, waiting: list[Node]) -> list[Node]:
        return [node for node in waiting if all(need in self.manifests for need in node.needs)]

    def _has_room(self, node: Node, running: list[Running]) -> bool:
        """Whether a node may start beside those that run."""
        if self.plan.recipe.workers is not None or self.device != "cpu":
            return len(running) < (self.plan.recipe.workers or 1)
        return fits(node.threads, [self.plan.nodes[one.name].threads for one in running], cores())

    def _started(self, node: Node, context: BaseContext) -> Running:
        try:
            return start(self._job(node), node.name, context)
        except NotStarted as error:
            what = f"its process could not be started ({error})"
            raise StageFailed(f"stage {node.name}: {what}; run the same command again to go on from here") from error

    def _job(self, node: Node) -> Job:
        recipe = self.plan.recipe
        inputs = {name: self._origin(name) for name in node.inputs}
        if recipe.tokenizer is not None:
            inputs["tokenizer"] = self._origin("tokenizer")
        return Job(
            kind=node.kind,
            name=node.target,
            key=node.key,
            recipe=recipe,
            base=self.base,
            data_dir=self.data_dir,
            device=self.device,
            dtype=self.dtype,
            threads=node.threads,
            folder=self.folder.artifact(node),
            work=self.folder.work(node, self.plan),
            inputs=inputs,
            flops=self._budget(node),
        )

    def _origin(self, name: str) -> str:
        """The folder (or hub id) of a model, a stage or the tokenizer."""
        if name in self.plan.nodes:
            return str(self.folder.artifact(self.plan.nodes[name]))
        spec = self.plan.recipe.models[name]
        if spec.folder is not None:
            return str((self.base / Path(spec.folder).expanduser()).resolve())
        if spec.tokenizer is not None:  # all that is here of a model behind an endpoint
            folder = self.base / Path(spec.tokenizer).expanduser()
            return str(folder.resolve()) if folder.is_dir() else spec.tokenizer
        return spec.hub or ""

    def _budget(self, node: Node) -> float | None:
        """A train stage's budget in FLOPs, if it has one."""
        if node.kind != "train":
            return None
        stage = self.plan.stage(node.name)
        assert isinstance(stage, TrainStage)
        if stage.equal_compute is None:
            return stage.flops
        declared = declared_flops(self.plan.recipe, stage.equal_compute)
        if declared is None:
            return remaining_flops(stage, self.path_flops(stage.equal_compute), self.path_flops(stage.from_))
        spent = declared_flops(self.plan.recipe, stage.from_)
        return remaining_flops(stage, declared, self.path_flops(stage.from_) if spent is None else spent)

    def path_flops(self, name: str) -> float:
        """Training FLOPs from random (or downloaded) weights to this stage, answers that it learned from included."""
        paid = paid_stages(self.plan.recipe, name)
        return sum(float(self.manifests[stage]["flops"]) for stage in paid if stage in self.manifests)

    def _listen(self, running: Running, progress: RunProgress) -> bool:
        """Read what a process has to say; true when it has done its work."""
        for message in running.messages():
            match message:
                case "progress", share, text:
                    progress.update(running.name, share, text)
                case "say", text:
                    progress.say(f"{running.name}: {text}")
                case "done", info:
                    self._done(running, info, progress)
                    return True
                case _:
                    # Of several processes one has ended, and the others wait for it.
                    running.kill()
                    raise _end_of(running.name, message)
        return False

    def _done(self, running: Running, info: dict[str, Any], progress: RunProgress) -> None:
        node = self.plan.nodes[running.name]
        running.close()
        self.manifests[node.name] = read_manifest(self.folder.artifact(node), check_content=False)
        self.computed.add(node.name)
        self.folder.show(node, self.plan)
        self.ledger.note(self.memory.peak / 1e9)
        self.ledger.write(self._entries())
        progress.end(node.name, f"done in {human_seconds(info['seconds'])}")

    def _entries(self) -> list[Entry]:
        entries = []
        for node in self.plan.nodes.values():
            if (
                node.kind not in ("train", "rejection_sampling", "teacher_logprobs", "dataset")
                or node.name not in self.manifests
            ):
                continue
            manifest = self.manifests[node.name]
            entries.append(
                Entry(
                    name=node.name,
                    kind=node.kind,
                    flops=manifest["flops"],
                    cumulative_flops=self.path_flops(node.name),
                    seconds=manifest["seconds"],
                    peak_memory_gb=manifest.get("peak_memory_gb", 0.0),
                    tokens=manifest["tokens"],
                    teacher_tokens=manifest.get("teacher_tokens", 0),
                    steps=manifest.get("steps", 0),
                    cached=node.name not in self.computed,
                )
            )
        return entries

    def finish(self) -> dict[str, Any]:
        """Write the ledger and `results.json`."""
        seconds, memory = self.ledger.totals({node.key for node in self.plan.nodes.values()})
        costs = {
            name: {
                "parameters": self.manifests[f"evaluate {name}"]["parameters"],
                "training_flops": self.path_flops(name),
                "seconds": self.manifests[name]["seconds"] if name in self.plan.nodes else 0.0,
            }
            for name in self.plan.measured
        }
        signatures = {name: self.manifests[f"evaluate {name}"]["signatures"] for name in self.plan.measured}
        results = summarise(self.plan.recipe, self.folder.evaluation, costs, signatures, self._validations()) | {
            "seconds": seconds,
            "peak_memory_gb": memory,
        }
        results = finite(results)
        self.ledger.write(self._entries(), results)
        write_atomically(self.folder.path / "results.json", json.dumps(results, indent=1, allow_nan=False))
        return results

    def _validations(self) -> dict[str, float]:
        """The validation scores of the measured stages that have one."""
        found = {}
        for stage in self.plan.recipe.stages:
            if isinstance(stage, TrainStage) and stage.validation is not None and stage.name in self.plan.measured:
                metrics = self.folder.artifact(self.plan.nodes[stage.name]) / METRICS
                found[stage.name] = validation_score(metrics, stage.validation)
        return found


def _end_of(name: str, message: Message) -> BaseException:
    """What it means that a stage's process ended with this message and without its work done."""
    match message:
        case "failed", "UserError", str(text):
            return UserError(text if text.startswith(f"stage {name}") else f"stage {name}: {text}")
        case "failed", _, str(text):
            return StageFailed(f"stage {name}: {text}")
        case "ended", int(status):
            known = {-9: "killed, perhaps for want of memory", FORK_SERVER_LOST: "lost: its fork server was ended"}
            why = known.get(status, f"ended with status {status}")
            return StageFailed(f"stage {name}: its process was {why}; run the same command again to go on from here")
        case _:  # it was told to stop, by somebody else
            return KeyboardInterrupt()


def _threads(recipe: Recipe, base: Path, device: str) -> int | dict[str, int]:
    """An equal share of the cores for each worker; without a number of workers, what the models are worth."""
    if recipe.workers is None and device == "cpu":
        return threads_by_model(recipe, base, cores())
    return max(1, cores() // (recipe.workers or 1))
