"""Plan a recipe: the graph of its artifacts, each node with a key that hashes all that it depends on."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from smallwit.errors import UserError
from smallwit.recipe.model import ModelSpec
from smallwit.recipe.schema import Recipe
from smallwit.recipe.stage import Stage
from smallwit.stages.evaluate import EvaluateStage
from smallwit.stages.tokenizer import TokenizerStage
from smallwit.storage.artifacts import content_key, file_hash, folder_hash
from smallwit.tasks import load_task, task_bytes

LIBRARIES = ("torch", "transformers", "tokenizers", "mpmath")
# These read the recipe, schedule and summarise. They cannot change what a stage with a given key computes.
NOT_COMPUTING = (
    "cli/",
    "console/",
    "evaluation/compare.py",
    "evaluation/comparison_table.py",
    "evaluation/endpoint_model.py",
    "evaluation/evaluate.py",
    "evaluation/folder.py",
    "evaluation/grade.py",
    "evaluation/model_reference.py",
    "evaluation/responses.py",
    "evaluation/scores_table.py",
    "evaluation/statistics.py",
    "network/hosts.py",
    "pipeline/ledger.py",
    "pipeline/plan.py",
    "pipeline/processes.py",
    "pipeline/results.py",
    "pipeline/run_folder.py",
    "pipeline/preflight.py",
    "pipeline/runs.py",
    "pipeline/scheduler.py",
    "pipeline/smoke.py",
    "pipeline/threads.py",
    "report/",
    "storage/locks.py",
    "suggestions.py",
)


@dataclass(frozen=True)
class Node:
    """An artifact to compute. `needs` names other nodes; `inputs` names the models and stages that it reads."""

    name: str
    stage: Stage
    key: str
    needs: tuple[str, ...]
    inputs: tuple[str, ...]
    threads: int


@dataclass
class Plan:
    """The nodes of a recipe in topological order: each comes after the nodes that it needs."""

    recipe: Recipe
    nodes: dict[str, Node] = field(default_factory=dict)

    def needed_for(self, names: Iterable[str]) -> set[str]:
        """Return the names of these nodes and of all nodes that they need."""
        needed: set[str] = set()
        waiting = list(names)
        while waiting:
            name = waiting.pop()
            if name not in needed:
                needed.add(name)
                waiting += self.nodes[name].needs
        return needed

    @property
    def measured(self) -> list[str]:
        """Return the evaluated models and stages in the order of the report; none if the recipe has no tasks."""
        if not self.recipe.tasks:
            return []
        chosen = self.recipe.evaluation.stages
        return self.recipe.model_stages if chosen is None else chosen


@cache
def code_version() -> str:
    """Return a hash of the package's source, so that changed code does not reuse an old artifact."""
    root = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root).as_posix()
        if not name.startswith(NOT_COMPUTING):
            digest.update(name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def make_plan(
    recipe: Recipe, *, base: Path, data_dir: Path | None, device: str, dtype: str, threads: int | Mapping[str, int]
) -> Plan:
    """Return the plan of a recipe. Keys hash code, configuration, inputs, data, seed, dtype, device and threads.

    `threads` is the number of CPU threads of every node, or maps each model of the recipe to the number for its nodes.

    Raises `UserError` for a stage at equal compute without any budget left, and for errors of the tasks.
    """
    if "tokenizer" in [*recipe.models, *(stage.name for stage in recipe.stages)]:
        raise UserError(
            "recipe: the name 'tokenizer' is reserved for the tokenizer of the recipe; rename the model or stage"
        )
    plan = Plan(recipe)
    keys = _Keys(recipe, base, data_dir, device, dtype)
    tokenizer = [TokenizerStage()] if recipe.tokenizer is not None else []
    for stage in [*tokenizer, *recipe.stages, *(EvaluateStage(name=name) for name in plan.measured)]:
        inputs = stage.inputs(recipe)
        needs = [name for name in inputs if name in plan.nodes]
        if any(name in recipe.models and recipe.models[name].new is not None for name in inputs):
            needs.append("tokenizer")
        content = stage.content(recipe, base, data_dir)
        if stage.compute_target is not None:
            target = recipe.declared_flops(stage.compute_target)
            content.append(target)
            if target is None:
                needs.append(stage.compute_target)
            else:
                remaining_flops(stage, target, recipe.declared_flops(stage.starts_from or "") or 0.0)
        count = _threads(stage, recipe, threads)
        key = keys.of(stage, inputs, content, {need: plan.nodes[need].key for need in needs}, count)
        name = f"evaluate {stage.name}" if stage.makes == "scores" else stage.name
        plan.nodes[name] = Node(name, stage, key, tuple(needs), tuple(inputs), count)
    return plan


def remaining_flops(stage: Stage, target: float, spent: float) -> float:
    """Return the FLOPs that a stage at equal compute may spend: `target` less `spent`.

    `target` is the cost of the path that it matches, `spent` that of the path to its start. Raises `UserError` if
    nothing is left.
    """
    if target <= spent:
        raise UserError(
            f"stage {stage.name}: {stage.compute_target} costs {target:.3g} FLOPs in all, and {stage.starts_from} "
            f"(the start of this stage) costs {spent:.3g} already; start from an earlier model"
        )
    return target - spent


class _Keys:
    """The keys of a recipe's nodes: hashes of all that their artifacts depend on."""

    def __init__(self, recipe: Recipe, base: Path, data_dir: Path | None, device: str, dtype: str) -> None:
        # As JSON: YAML has dates, and keys are hashes of JSON.
        options = recipe.model_dump(mode="json", include={"tasks"})["tasks"]
        self.tasks = {
            name: [options[name], *_task_identity(name, given, data_dir, base)] for name, given in recipe.tasks.items()
        }
        self.models = {name: _model_identity(recipe, name, base) for name in recipe.models}
        self.recipe = recipe
        self.common = {
            "code": code_version(),
            "libraries": {name: version(name) for name in LIBRARIES},
            "seed": recipe.seed,
            "dtype": dtype,
            "device": device,
        }

    def of(self, stage: Stage, inputs: list[str], content: list[Any], needs: dict[str, str], threads: int) -> str:
        """Return the key of a stage from its `inputs`, its `content` and the keys of the nodes that it `needs`."""
        read = [*stage.tasks_read(self.recipe), *stage.validated_tasks(self.recipe)]
        own = {
            "stage": stage.model_dump(mode="json", exclude=set(stage.without_effect)),
            "tasks": {name: self.tasks[name] for name in read},
            "content": content,
            "needs": needs,
            "models": {name: self.models[name] for name in inputs if name in self.models},
            "threads": threads,
        }
        return content_key(self.common | own)


def _threads(stage: Stage, recipe: Recipe, threads: int | Mapping[str, int]) -> int:
    """Return the CPU threads of a stage: its own setting, or those of the largest model among its inputs.

    Each process of the stage gets at least one.
    """
    if stage.threads is not None:
        return stage.threads
    if isinstance(threads, int):
        return threads
    models = [name for name in stage.inputs(recipe) if name in recipe.models or name in recipe.model_stages]
    return max([stage.process_count, *(threads[recipe.first_model_name(name)] for name in models)])


def _task_identity(name: str, options: dict[str, Any], data_dir: Path | None, base: Path) -> list[Any]:
    """Return hashes of the user's own task file and of the data that the task reads."""
    fingerprint = getattr(load_task(name, options, data_dir, base), "fingerprint", None)
    own = hashlib.sha256(task_bytes(name, options, base)).hexdigest()
    return [own, fingerprint() if fingerprint is not None else None]


def _model_identity(recipe: Recipe, name: str, base: Path) -> Any:
    spec = recipe.models[name]
    return [_weights_identity(spec, base), spec.chat_template_kwargs, spec.control_tokens]


def _weights_identity(spec: ModelSpec, base: Path) -> Any:
    if spec.folder is not None:
        return folder_hash(base / Path(spec.folder).expanduser())
    if spec.gguf is not None:
        return {"gguf": file_hash(base / Path(spec.gguf).expanduser())}
    if spec.endpoint is not None:
        # The first server identifies the model; the others only share the work.
        own = base / Path(spec.tokenizer).expanduser() if spec.tokenizer is not None else None
        tokenizer = folder_hash(own) if own is not None and own.is_dir() else spec.tokenizer
        return {"endpoint": spec.urls[0], "model": spec.model, "tokenizer": tokenizer}
    return spec.model_dump(mode="json", include={"new", "hub", "revision"})
