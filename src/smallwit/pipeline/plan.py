"""Plan a recipe: the graph of its artifacts, each node with a key that hashes all that it depends on."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

from smallwit import __version__
from smallwit.device import cores
from smallwit.errors import UserError
from smallwit.network import hub
from smallwit.pipeline.code_version import code_version
from smallwit.pipeline.key_records import KeyRecord, Parts, flattened
from smallwit.pipeline.seeds import over_seeds, seeded_name
from smallwit.pipeline.threads import threads_by_model
from smallwit.recipe.model import ModelSpec
from smallwit.recipe.schema import Recipe
from smallwit.recipe.stage import Stage
from smallwit.stages.evaluate import EvaluateStage
from smallwit.stages.tokenizer import TokenizerStage
from smallwit.storage.artifacts import content_key, file_hash, folder_hash
from smallwit.tasks import load_task, task_bytes

LIBRARIES = ("torch", "transformers", "tokenizers", "mpmath")


@dataclass(frozen=True)
class Node:
    """An artifact to compute. `needs` names other nodes; `inputs` names the models and stages that it reads.

    `seed` is `None` if nothing in the artifact depends on a seed. `label` names the artifact among those of its type.
    `parts` are the parts of the key by name. `made_with` is what is recorded beside it: versions and CPU threads, which
    may change some bits of what is computed.
    """

    name: str
    label: str
    stage: Stage
    seed: int | None
    key: str
    needs: tuple[str, ...]
    inputs: tuple[str, ...]
    threads: int
    parts: Parts
    made_with: Mapping[str, Any]

    @property
    def record(self) -> KeyRecord:
        """Return the record of the key before any attempt."""
        return KeyRecord(self.name, self.key, self.parts)


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

    def node(self, name: str, seed: int | None) -> Node | None:
        """Return the node of a stage for this seed, the only one if it does not depend on seeds; `None` for a model."""
        return self.nodes.get(seeded_name(name, seed, self.recipe)) or self.nodes.get(name)

    @property
    def evaluations(self) -> dict[str, Node]:
        """Return the nodes that measure a model, by label: those of the first seed in the order of the report."""
        return {node.label: node for node in self.nodes.values() if node.stage.makes == "scores"}

    @property
    def measured(self) -> list[str]:
        """Return the evaluated models and stages in the order of the report; none if the recipe has no tasks."""
        if not self.recipe.tasks:
            return []
        chosen = self.recipe.evaluation.stages
        return self.recipe.model_stages if chosen is None else chosen


def make_plan(
    recipe: Recipe, *, base: Path, data_dir: Path | None, device: str, dtype: str, threads: int | Mapping[str, int]
) -> Plan:
    """Return the plan of a recipe. Keys hash code, configuration, inputs, data, dtype, device and, where something
    depends on it, the seed.

    `threads` is the number of CPU threads of every node, or maps each model of the recipe to the number for its nodes.

    Raises `UserError` for a stage at equal compute without any budget left, and for errors of the tasks.
    """
    if "tokenizer" in [*recipe.models, *(stage.name for stage in recipe.stages)]:
        raise UserError(
            "recipe: the name 'tokenizer' is reserved for the tokenizer of the recipe; rename the model or stage"
        )
    plan = Plan(recipe)
    keys = _Keys(recipe, base, data_dir, device, dtype)
    for stage, seed in over_seeds(recipe, planned_stages(recipe)):
        inputs = stage.inputs(recipe)
        needs = [node.name for name in inputs if (node := plan.node(name, seed)) is not None]
        if any(name in recipe.models and recipe.models[name].new is not None for name in inputs):
            needs.append("tokenizer")
        content = stage.content(recipe, base, data_dir)
        if stage.compute_target is not None:
            target = recipe.declared_flops(stage.compute_target)
            content["target_flops"] = target
            if target is None:
                needs.append(seeded_name(stage.compute_target, seed, recipe))
            else:
                remaining_flops(stage, target, recipe.declared_flops(stage.starts_from or "") or 0.0)
        count = _threads(stage, recipe, threads)
        # By stage: the same artifact has the same key in a run whose first seed is this one.
        needed = {plan.nodes[need].stage.name: plan.nodes[need].key for need in needs}
        parts = keys.parts(stage, inputs, content, needed, seed)
        label = seeded_name(stage.name, seed, recipe)
        name = f"evaluate {label}" if stage.makes == "scores" else label
        made_with = keys.versions | {"cores": cores(), "threads": count}
        key, named = content_key(parts), flattened(parts)
        plan.nodes[name] = Node(name, label, stage, seed, key, tuple(needs), tuple(inputs), count, named, made_with)
    return plan


def plan_for(recipe: Recipe, base: Path, data_dir: Path | None, device: str, dtype: str) -> Plan:
    """Return the plan of a recipe on this machine: `make_plan` with threads as the recipe and the cores allow.

    With `workers` each has an equal share of the cores; on a CPU without it threads are by the models' sizes.
    """
    if recipe.workers is None and device == "cpu":
        threads: int | dict[str, int] = threads_by_model(recipe, base, cores())
    else:
        threads = max(1, cores() // (recipe.workers or 1))
    return make_plan(recipe, base=base, data_dir=data_dir, device=device, dtype=dtype, threads=threads)


def planned_stages(recipe: Recipe) -> list[Stage]:
    """Return the stages of a plan in its order: the tokenizer, those of the recipe, one for each measured model."""
    tokenizer = [TokenizerStage()] if recipe.tokenizer is not None else []
    return [*tokenizer, *recipe.stages, *(EvaluateStage(name=name) for name in Plan(recipe).measured)]


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


def origin_of(spec: ModelSpec, base: Path) -> str:
    """Return the folder (or hub id) of a model; of one behind an endpoint that of its tokenizer."""
    if spec.folder is not None:
        return str((base / Path(spec.folder).expanduser()).resolve())
    if spec.gguf is not None:
        # Imported here: it takes seconds.
        from smallwit.models.gguf_import import imported_folder

        return str(imported_folder(base / Path(spec.gguf).expanduser()))
    if spec.tokenizer is not None:  # the only local part of a model behind an endpoint
        folder = base / Path(spec.tokenizer).expanduser()
        return str(folder.resolve()) if folder.is_dir() else spec.tokenizer
    return spec.hub or ""


class _Keys:
    """The parts of the keys of a recipe's nodes: all that their artifacts depend on."""

    def __init__(self, recipe: Recipe, base: Path, data_dir: Path | None, device: str, dtype: str) -> None:
        # As JSON: YAML has dates, and keys are hashes of JSON.
        options = recipe.model_dump(mode="json", include={"tasks"})["tasks"]
        self.tasks = {
            name: {"options": options[name]} | _task_identity(name, given, data_dir, base)
            for name, given in recipe.tasks.items()
        }
        self.recipe, self.base = recipe, base
        self.models: dict[str, Any] = {}
        libraries = {name: version(name) for name in LIBRARIES}
        self.versions = {"smallwit": __version__} | libraries
        self.common = {
            "code": code_version(),
            "libraries": {name: _release(found) for name, found in libraries.items()},
            "dtype": dtype,
            "device": device,
        }

    def parts(
        self, stage: Stage, inputs: list[str], content: dict[str, Any], needs: dict[str, str], seed: int | None
    ) -> dict[str, Any]:
        """Return the parts of a stage's key for a seed. `needs` has the keys of the stages that it needs, by name."""
        read = [*stage.tasks_read(self.recipe), *stage.validated_tasks(self.recipe)]
        own = {
            "stages": {stage.name: stage.model_dump(mode="json", exclude={"threads", *stage.without_effect})},
            "tasks": {name: self.tasks[name] for name in read},
            "inputs": needs,
            "models": {name: self._model(name) for name in inputs if name in self.recipe.models},
            "seed": seed,
        }
        return self.common | content | own

    def _model(self, name: str) -> dict[str, Any]:
        # Only of models that are used: a model of the hub is asked for.
        if name not in self.models:
            self.models[name] = _model_identity(self.recipe, name, self.base)
        return cast(dict[str, Any], self.models[name])


def _release(version: str) -> str:
    """Return major and minor version: patches are recorded and not part of keys."""
    return ".".join(version.split(".")[:2])


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


def _task_identity(name: str, options: dict[str, Any], data_dir: Path | None, base: Path) -> dict[str, Any]:
    """Return hashes of the user's own task file and of the data that the task reads."""
    fingerprint = getattr(load_task(name, options, data_dir, base), "fingerprint", None)
    own = hashlib.sha256(task_bytes(name, options, base)).hexdigest()
    return {"file": own, "data": fingerprint() if fingerprint is not None else None}


def _model_identity(recipe: Recipe, name: str, base: Path) -> Any:
    spec = recipe.models[name]
    options = {"chat_template_kwargs": spec.chat_template_kwargs, "control_tokens": spec.control_tokens}
    return {"weights": _weights_identity(spec, base)} | options


def _weights_identity(spec: ModelSpec, base: Path) -> Any:
    if spec.folder is not None:
        return folder_hash(base / Path(spec.folder).expanduser())
    if spec.gguf is not None:
        return {"gguf": file_hash(base / Path(spec.gguf).expanduser())}
    if spec.endpoint is not None:
        # The first server identifies the model; the others only share the work.
        tokenizer: Any = spec.tokenizer
        if spec.tokenizer is not None:
            own = base / Path(spec.tokenizer).expanduser()
            commit = hub.pinned("models", spec.tokenizer)
            tokenizer = folder_hash(own) if own.is_dir() else {"hub": spec.tokenizer, "commit": commit}
        return {"endpoint": spec.urls[0], "model": spec.model, "tokenizer": tokenizer}
    if spec.hub is not None:
        return {"hub": spec.hub, "commit": hub.model_commit(spec.hub, spec.revision)}
    return spec.model_dump(mode="json", include={"new"})
