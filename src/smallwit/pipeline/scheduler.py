"""Schedule the nodes of a plan, in parallel where the machine allows it, and account for their cost."""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType

from smallwit.console.numbers import human_seconds
from smallwit.console.progress import RunProgress, TimeLeft
from smallwit.device import available_memory
from smallwit.errors import RunFailed, UserError
from smallwit.network import hub
from smallwit.pipeline.adoption import Adoption
from smallwit.pipeline.forecast import Forecast, time_left, totals_of
from smallwit.pipeline.forecast_text import totals_line
from smallwit.pipeline.ledger import Entry, Ledger
from smallwit.pipeline.plan import Node, Plan, origin_of, remaining_flops
from smallwit.pipeline.processes import (
    FORK_SERVER_LOST,
    MemoryWatch,
    Message,
    NotStarted,
    Running,
    fork_server,
    start,
    stop,
    wait_for_news,
)
from smallwit.pipeline.rates import MeasuredRates
from smallwit.pipeline.results import summarise
from smallwit.pipeline.run_folder import RunFolder
from smallwit.pipeline.threads import has_room
from smallwit.stages.job import Job
from smallwit.storage.artifacts import read_manifest, write_atomically
from smallwit.storage.jsonl import finite


class StageFailed(RunFailed):
    """A stage failed. The message names it and the reason."""


class Scheduler:
    """The scheduler of a plan: nodes in the recipe's order, at most `recipe.workers` at a time or as cores allow.

    `live` returns what a terminal shows above the progress of the nodes.
    """

    def __init__(
        self,
        plan: Plan,
        folder: RunFolder,
        base: Path,
        data_dir: Path | None,
        device: str,
        dtype: str,
        console: Console,
        adopt: Sequence[str] = (),
        exact: bool = False,
        track: tuple[str, ...] = (),
        live: "Live | None" = None,
    ) -> None:
        self.track, self.live = track, live
        self.plan, self.folder, self.base, self.data_dir = plan, folder, base, data_dir
        self.device, self.dtype, self.console = device, dtype, console
        self.manifests: dict[str, dict[str, Any]] = {}
        self.computed: set[str] = set()
        self.ledger = Ledger(folder.path / "ledger.json")
        self.memory = MemoryWatch()
        self.adoption = Adoption(plan, folder, adopt, exact, self._say)

    def run(self, wanted: set[str]) -> None:
        """Compute the `wanted` nodes whose artifacts are missing."""
        if self.folder.first:
            self.folder.tidy(self.plan)
        self.manifests = self.folder.find(self.plan, self._say)
        missing = [node for node in self.plan.nodes.values() if node.name in wanted - self.manifests.keys()]
        self.adoption.settle(missing, self.manifests)
        for name in self.manifests:
            self.folder.show(self.plan.nodes[name], self.plan)
        waiting = [node for node in missing if node.name not in self.manifests]
        if waiting and self.folder.first:
            self.folder.delete_stale_results()
        self.folder.share()
        if not waiting:
            return
        context = fork_server()
        running: list[Running] = []
        self.ledger.spend({})
        above = None if self.live is None else partial(self.live, self)
        with RunProgress(self.console, self._forecast(waiting), above) as progress:
            try:
                while waiting or running:
                    for node in self._ready(waiting):
                        if self.folder.shared and self.folder.artifact(node).exists():
                            waiting.remove(node)
                            self.manifests[node.name] = read_manifest(self.folder.artifact(node), check_content=False)
                            progress.say(f"{node.name}: done by another process")
                            continue
                        taken = [self.plan.nodes[one.name].threads for one in running]
                        if not has_room(self.plan.recipe, self.device, node.threads, taken):
                            continue
                        if not self.folder.claim(node):
                            continue
                        waiting.remove(node)
                        progress.start(node.name)
                        self.ledger.begin(node.key)
                        running.append(self._started(node, context))
                    wait_for_news(running, 0.25)
                    self.memory.sample()
                    self.ledger.spend(
                        {self.plan.nodes[one.name].key: self.plan.nodes[one.name].threads for one in running}
                    )
                    running = [one for one in running if not self._listen(one, progress)]
                    if self.ledger.due:
                        self._write_ledger()
                    progress.tick()
            except KeyboardInterrupt:
                progress.say("stopping; running stages save first (Ctrl-C again stops at once)")
                raise
            except StageFailed:
                if any(one.first.is_alive() for one in running):
                    progress.say("a stage has failed; the others save first (Ctrl-C stops at once)")
                raise
            finally:
                # No stage may run on after an error here.
                stop(running, progress.say)

    def _forecast(self, waiting: Sequence[Node]) -> TimeLeft | None:
        """Print the totals of what is to do, if it was planned. Return what tells the time left, if that is known."""
        kept = MeasuredRates(self.device).forecasts
        found = [Forecast(**kept[node.key]) for node in waiting if node.key in kept]
        if not found:
            self._say("time and memory are not known: `smallwit plan RECIPE` measures this machine and tells them")
            return None
        totals = totals_of(self.plan, found, self.device)
        self._say(f"plan: {totals_line(totals, available_memory(self.device))}")
        if totals.seconds is None:
            return None

        def left(shares: Mapping[str, float]) -> float:
            seconds = {
                name: seconds * (1 - shares.get(name, 0.0))
                for name, seconds in totals.by_node.items()
                if name not in self.manifests
            }
            return time_left(self.plan, seconds, self.device)

        return left

    def _say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _ready(self, waiting: list[Node]) -> list[Node]:
        return [node for node in waiting if all(need in self.manifests for need in node.needs)]

    def _started(self, node: Node, context: BaseContext) -> Running:
        try:
            return start(self._job(node), node.name, context)
        except NotStarted as error:
            what = f"its process could not be started ({error})"
            raise StageFailed(f"stage {node.name}: {what}; run the same command again to go on from here") from error

    def _job(self, node: Node) -> Job:
        recipe = self.plan.recipe
        if node.seed is not None:
            recipe = recipe.model_copy(update={"seed": node.seed})
        inputs = {name: self._origin(name, node.seed) for name in node.inputs}
        if recipe.tokenizer is not None:
            inputs["tokenizer"] = self._origin("tokenizer", None)
        return Job(
            stage=node.stage,
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
            about=self.adoption.begin(node).manifest(),
            pins=hub.pins(),
            track=self.track,
        )

    def _origin(self, name: str, seed: int | None) -> str:
        """Return the folder (or hub id) of a model, of a stage for this seed, or of the tokenizer."""
        if (made := self.plan.node(name, seed)) is not None:
            return str(self.folder.artifact(made))
        return origin_of(self.plan.recipe.models[name], self.base)

    def _budget(self, node: Node) -> float | None:
        """Return the stage's budget in FLOPs, if it has one."""
        stage, recipe = node.stage, self.plan.recipe
        if stage.compute_target is None:
            return stage.declared_flops
        start = stage.starts_from or ""
        target, spent = recipe.declared_flops(stage.compute_target), recipe.declared_flops(start)
        if target is None:
            matched = self.path_flops(stage.compute_target, node.seed)
            return remaining_flops(stage, matched, self.path_flops(start, node.seed))
        return remaining_flops(stage, target, self.path_flops(start, node.seed) if spent is None else spent)

    def path_flops(self, name: str, seed: int | None) -> float:
        """Return the FLOPs from random (or downloaded) weights to this stage, with those of its training data."""
        nodes = [self.plan.node(stage.name, seed) for stage in self.plan.recipe.charged_stages(name)]
        done = [node.name for node in nodes if node is not None and node.name in self.manifests]
        return sum(float(self.manifests[each]["flops"]) for each in done)

    def _listen(self, running: Running, progress: RunProgress) -> bool:
        """Handle the messages of a process, and return whether it is done."""
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
                    # One of several processes has ended, and the others still wait for it.
                    running.kill()
                    raise _end_of(running.name, message)
        return False

    def _done(self, running: Running, info: dict[str, Any], progress: RunProgress) -> None:
        node = self.plan.nodes[running.name]
        running.close()
        self.folder.release(node)
        self.manifests[node.name] = read_manifest(self.folder.artifact(node), check_content=False)
        self.computed.add(node.name)
        self.folder.show(node, self.plan)
        self._write_ledger()
        progress.end(node.name, f"done in {human_seconds(info['seconds'])}")

    def _write_ledger(self) -> None:
        self.ledger.note(self.memory.peak / 1e9)
        self.ledger.write(self._entries(), costs=self._costs())

    def _entries(self) -> list[Entry]:
        entries = []
        for node in self.plan.nodes.values():
            if not node.stage.counted or node.name not in self.manifests:
                continue
            manifest = self.manifests[node.name]
            entries.append(
                Entry(
                    name=node.name,
                    kind=node.stage.kind,
                    flops=manifest["flops"],
                    cumulative_flops=self.path_flops(node.stage.name, node.seed),
                    seconds=manifest["seconds"],
                    peak_memory_gb=manifest.get("peak_memory_gb", 0.0),
                    tokens=manifest["tokens"],
                    teacher_tokens=manifest.get("teacher_tokens", 0),
                    steps=manifest.get("steps", 0),
                    cached=node.name not in self.computed,
                    adopted=(manifest.get("adopted") or {}).get("changed"),
                )
            )
        return entries

    def _costs(self) -> dict[str, Any]:
        """Return what all nodes have cost, evaluations and the tokenizer too."""
        recipe = self.plan.recipe
        tokens = {
            name: int(manifest.get("teacher_tokens", 0))
            for name, manifest in self.manifests.items()
            if any(map(recipe.is_remote, self.plan.nodes[name].stage.asked_models()))
        }
        return self.ledger.costs({name: node.key for name, node in self.plan.nodes.items()}, recipe.prices, tokens)

    def finish(self) -> dict[str, Any]:
        """Write the ledger and `results.json`, when no other process is at work in the folder."""
        self.folder.take()
        if self.folder.shared:
            for node in self.plan.nodes.values():
                self.folder.show(node, self.plan)
        seconds, memory = self.ledger.totals({node.key for node in self.plan.nodes.values()})
        evaluations = self.plan.evaluations
        costs = {
            label: {
                "parameters": self.manifests[node.name]["parameters"],
                "training_flops": self.path_flops(node.stage.name, node.seed),
                "seconds": self.manifests[label]["seconds"] if label in self.plan.nodes else 0.0,
                **_of_export(self.manifests.get(label, {})),
            }
            for label, node in evaluations.items()
        }
        signatures = {label: self.manifests[node.name]["signatures"] for label, node in evaluations.items()}
        results = summarise(self.plan.recipe, self.folder.evaluation, costs, signatures, self._validations()) | {
            "seconds": seconds,
            "peak_memory_gb": memory,
        }
        results = finite(results)
        self.ledger.write(self._entries(), results, costs=self._costs())
        write_atomically(self.folder.path / "results.json", json.dumps(results, indent=1, allow_nan=False))
        return results

    def _validations(self) -> dict[str, float]:
        """Return the validation scores of the measured stages that have one, by label."""
        found = {}
        for label in self.plan.evaluations:
            node = self.plan.nodes.get(label)
            score = node.stage.validation_score(self.folder.artifact(node)) if node is not None else None
            if score is not None:
                found[label] = score
        return found


def _of_export(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return number format and bytes of an exported model; nothing for any other."""
    return {key: manifest[key] for key in ("number_format", "bytes") if "number_format" in manifest}


Live = Callable[[Scheduler], RenderableType]


def _end_of(name: str, message: Message) -> BaseException:
    """Return the exception for a stage whose process ended with this message before it was done."""
    match message:
        case "failed", "UserError", str(text):
            return UserError(text if text.startswith(f"stage {name}") else f"stage {name}: {text}")
        case "failed", _, str(text):
            return StageFailed(f"stage {name}: {text}")
        case "ended", int(status):
            known = {-9: "killed, perhaps because memory ran out", FORK_SERVER_LOST: "lost: its fork server was ended"}
            why = known.get(status, f"ended with status {status}")
            return StageFailed(f"stage {name}: its process was {why}; run the same command again to go on from here")
        case _:  # another process told it to stop
            return KeyboardInterrupt()
