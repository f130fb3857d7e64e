"""What a recipe is going to need: memory, FLOPs, seconds and money of each node, before anything runs."""

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from statistics import mean
from typing import Any

import psutil

from smallwit.device import available_memory
from smallwit.pipeline.plan import Node, Plan, origin_of, remaining_flops
from smallwit.pipeline.processes import preloaded_modules
from smallwit.pipeline.rates import Rates
from smallwit.pipeline.run_folder import RunFolder
from smallwit.pipeline.threads import has_room
from smallwit.stages.estimate import Known, StageEstimate, Work
from smallwit.stages.job import Job, Reporter
from smallwit.storage.artifacts import METRICS
from smallwit.storage.jsonl import parse_json

ADVICE = {
    "activations": "micro_tokens (fewer), then gradient_checkpointing: true",
    "logits": "micro_tokens (fewer)",
    "optimizer": "lora",
    "gradients": "lora",
    "cache": "rows that are generated at a time (prompts, group, batch), then max_new_tokens",
    "teacher": "the teacher: store what it knows by a teacher_logprobs stage",
    "checkpoint": "checkpoint_seconds (more)",
}
"""The first setting to change where a part of memory is the largest that can be made smaller."""


@dataclass(frozen=True)
class Forecast:
    """What one node is going to need: `memory` in bytes by part, and on a GPU `host`; `seconds` if rates are known."""

    name: str
    parameters: int
    memory: Mapping[str, float]
    host: Mapping[str, float]
    flops: float
    seconds: float | None
    steps: int
    notes: tuple[str, ...] = ()

    @property
    def peak(self) -> float:
        """Return the most bytes at a time."""
        return sum(self.memory.values())

    @property
    def advice(self) -> str:
        """Return the first setting to change where memory is short."""
        parts = [part for part in ADVICE if self.memory.get(part)]
        return (
            ADVICE[max(parts, key=lambda part: self.memory[part])] if parts else "a smaller model, or dtype: bfloat16"
        )


@dataclass(frozen=True)
class Totals:
    """The totals of a plan: `seconds` of the whole run, the most bytes at a time, and each node's seconds."""

    seconds: float | None
    peak: float
    flops: float
    by_node: Mapping[str, float] = field(default_factory=dict)


class Planner:
    """Estimates the nodes of a plan, each by its stage. `process` are the bytes of a process that has only imported.

    Of an earlier run in `folder` it takes the rows that are there, and the lengths and pass rates that were measured.
    """

    def __init__(
        self, plan: Plan, folder: RunFolder, base: Path, data_dir: Path | None, device: str, dtype: str
    ) -> None:
        self.plan, self.folder, self.base, self.data_dir = plan, folder, base, data_dir
        self.device, self.dtype = device, dtype
        self.process = 0.0
        self.estimates: dict[str, StageEstimate] = {}
        self.unknown: list[str] = []
        self._own = ""

    @contextmanager
    def estimated(self) -> Iterator[None]:
        """Estimate all nodes; within the block their work can be measured. Raises `UserError` for unreadable data."""
        # As in the process of a stage.
        for module in preloaded_modules():
            import_module(module)
        self.process = float(psutil.Process().memory_info().rss)
        with tempfile.TemporaryDirectory() as self._own:
            # A budget that is equal to a path's is known when the path's stages are.
            nodes = sorted(self.plan.nodes.values(), key=lambda node: node.stage.compute_target is not None)
            for node in nodes:
                found = node.stage.estimate(self._job(node), self.known(node))
                if found is not None:
                    self.estimates[node.name] = found
                elif node.stage.makes != "tokenizer":
                    self.unknown.append(node.name)
            self.estimates = {name: self.estimates[name] for name in self.plan.nodes if name in self.estimates}
            yield

    def work(self) -> list[Work]:
        """Return the work of all nodes."""
        return [work for estimate in self.estimates.values() for work in estimate.work]

    def forecasts(self, rates: Rates) -> list[Forecast]:
        """Return what each estimated node needs, at these rates."""
        return [self._forecast(self.plan.nodes[name], found, rates) for name, found in self.estimates.items()]

    def _forecast(self, node: Node, found: StageEstimate, rates: Rates) -> Forecast:
        # Imported here: it imports torch, which a run whose work is all done does not need.
        from smallwit.training.checkpoint_writer import MIN_SECONDS

        known = [(work.flops, rates.of(work)) for work in found.work]
        processes = node.stage.process_count
        seconds = None
        if all(rate is not None for _, rate in known):
            seconds = sum(flops / rate for flops, rate in known if rate is not None) / processes
        memory = {part: size * processes for part, size in found.memory.items()}
        held = self.process + (sum(memory.values()) if self.device == "cpu" else 0.0)
        # Of a short stage none is saved, and where there is no room for it training waits in place of a copy.
        copied = (seconds is None or seconds > MIN_SECONDS) and available_memory() - held >= 2 * found.copies
        host = {"process": self.process * processes, "checkpoint": found.copies if copied else 0.0}
        if self.device == "cpu":
            memory, host = host | memory, {}
        memory, host = ({part: size for part, size in parts.items() if size} for parts in (memory, host))
        return Forecast(node.name, found.parameters, memory, host, found.flops, seconds, found.steps, found.notes)

    def known(self, node: Node) -> Known:
        """Return what an earlier run of this folder measured of a stage or of its model."""
        started = node.stage.starts_from
        if node.stage.makes == "scores":
            rows = self._samples(node.label)
            return Known(_mean(rows, "tokens"))
        metrics = _rows(self.folder.work(node, self.plan) / METRICS)
        return Known(_mean(metrics, "length"), _mean(self._samples(started), "strict") if started else None)

    def _samples(self, name: str) -> list[dict[str, Any]]:
        return [row for path in sorted((self.folder.evaluation / name).glob("*.jsonl")) for row in _rows(path)]

    def _job(self, node: Node) -> Job:
        recipe = self.plan.recipe
        inputs = {name: origin for name in node.inputs if (origin := self._origin(name, node.seed)) is not None}
        if recipe.tokenizer is not None:
            inputs["tokenizer"] = self._tokenizer()
        place = Path()
        job = Job(
            node.stage,
            "",
            recipe,
            self.base,
            self.data_dir,
            self.device,
            self.dtype,
            node.threads,
            place,
            place,
            inputs,
        )
        return replace(job, flops=self._budget(node))

    def _origin(self, name: str, seed: int | None) -> str | None:
        """Return where a model has its shape and its tokenizer, and other artifacts their files, if they are there."""
        recipe, made = self.plan.recipe, self.plan.node(name, seed)
        if made is None or made.stage.makes == "model":
            spec = recipe.first_model(name)
            return self._tokenizer() if spec.new is not None else origin_of(spec, self.base)
        folder = self.folder.artifact(made)
        return str(folder) if folder.is_dir() else None

    def _tokenizer(self) -> str:
        """Return the folder of the recipe's tokenizer, which is trained here if it is not there yet."""
        node = self.plan.nodes["tokenizer"]
        made, own = self.folder.artifact(node), Path(self._own) / "tokenizer"
        if not made.is_dir() and not own.is_dir():
            recipe, place = self.plan.recipe, Path(self._own)
            job = Job(node.stage, "", recipe, self.base, self.data_dir, "cpu", "float32", 1, own, place)
            node.stage.run(job, Reporter(lambda share, text: None, lambda text: None, lambda: False))
        return str(made if made.is_dir() else own)

    def _budget(self, node: Node) -> float | None:
        """Return the FLOPs that the stage may spend, as `Scheduler` does; those of other stages are estimated."""
        target = node.stage.compute_target
        if target is None:
            return node.stage.declared_flops
        return remaining_flops(node.stage, self._path(target), self._path(node.stage.starts_from or ""))

    def _path(self, name: str) -> float:
        stages = [stage.name for stage in self.plan.recipe.charged_stages(name)]
        return sum(self.estimates[each].flops for each in stages if each in self.estimates)


def totals_of(plan: Plan, forecasts: Sequence[Forecast], device: str) -> Totals:
    """Return the totals of nodes that start as the scheduler starts them: as many at a time as have room."""
    seconds = {each.name: each.seconds for each in forecasts if each.seconds is not None}
    whole = time_left(plan, seconds, device) if len(seconds) == len(forecasts) else None
    peak = max((_beside(plan, one, forecasts, device) for one in forecasts), default=0.0)
    return Totals(whole, peak, sum(each.flops for each in forecasts), seconds)


def time_left(plan: Plan, seconds: Mapping[str, float], device: str) -> float:
    """Return the seconds until all nodes are done of which these many seconds are left; others are done already."""
    now, ends = 0.0, dict[str, float]()
    waiting, left = [name for name in plan.nodes if name in seconds], set(seconds)
    while waiting or ends:
        for name in list(waiting):
            taken = [plan.nodes[other].threads for other in ends]
            if not left & plan.needed_for([name]) - {name} and has_room(
                plan.recipe, device, plan.nodes[name].threads, taken
            ):
                waiting.remove(name)
                ends[name] = now + seconds[name]
        first = min(ends, key=lambda name: ends[name])
        now = ends.pop(first)
        left.discard(first)
    return now


def _beside(plan: Plan, one: Forecast, forecasts: Sequence[Forecast], device: str) -> float:
    """Return the most bytes of a node and of others that may run at the same time: none of them needs another."""
    chosen = [one]
    for other in sorted(forecasts, key=lambda each: -each.peak):
        apart = all(
            other.name not in plan.needed_for([each.name]) and each.name not in plan.needed_for([other.name])
            for each in chosen
        )
        taken = [plan.nodes[each.name].threads for each in chosen]
        if apart and has_room(plan.recipe, device, plan.nodes[other.name].threads, taken):
            chosen.append(other)
    return sum(each.peak for each in chosen)


def _rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a file of JSON lines, if it is there. A line that a killed run left half is no row."""
    rows = []
    for line in path.read_bytes().splitlines() if path.is_file() else []:
        with suppress(ValueError):
            rows.append(parse_json(line.decode()))
    return rows


def _mean(rows: Iterable[Mapping[str, Any]], key: str) -> float | None:
    found = [float(row[key]) for row in rows if row.get(key) is not None]
    return mean(found) if found else None
