"""From a recipe to the graph of what must be computed, each node with a key that says what it depends on."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from smallwit.data.build import content_of, origin_of_tokenizer
from smallwit.errors import UserError
from smallwit.pipeline.costs import answers_of, declared_flops, remaining_flops, teachers_of
from smallwit.recipe.objectives import PolicyGradient
from smallwit.recipe.rewards import FunctionReward
from smallwit.recipe.schema import DatasetStage, ModelSpec, Recipe, Rollouts, Stage, TeacherLogprobsStage, TrainStage
from smallwit.storage.artifacts import content_key, file_hash, folder_hash
from smallwit.tasks import load_task, task_bytes
from smallwit.tasks.reward_function import reward_bytes

LIBRARIES = ("torch", "transformers", "tokenizers", "mpmath")
# These read the recipe, conduct, and sum up; they cannot change what a stage with a given key computes.
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
    "pipeline/costs.py",
    "pipeline/ledger.py",
    "pipeline/plan.py",
    "pipeline/processes.py",
    "pipeline/results.py",
    "pipeline/run_folder.py",
    "pipeline/runs.py",
    "pipeline/smoke.py",
    "pipeline/threads.py",
    "report/",
    "storage/locks.py",
    "suggestions.py",
)


@dataclass(frozen=True)
class Node:
    """One artifact to be made. `needs` are names of other nodes; `inputs` names of models and stages it reads."""

    name: str
    kind: str
    key: str
    target: str
    needs: tuple[str, ...]
    inputs: tuple[str, ...]
    threads: int


@dataclass
class Plan:
    """The nodes in an order in which each comes after what it needs."""

    recipe: Recipe
    nodes: dict[str, Node] = field(default_factory=dict)

    def stage(self, name: str) -> Stage:
        """The stage of this name."""
        return next(stage for stage in self.recipe.stages if stage.name == name)

    def needed_for(self, names: Iterable[str]) -> set[str]:
        """These nodes and all that they need."""
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
        """Models and stages that are evaluated, in the order in which they are shown; none without a task."""
        if not self.recipe.tasks:
            return []
        chosen = self.recipe.evaluation.stages
        if chosen is not None:
            return chosen
        return [stage.name for stage in self.recipe.stages if isinstance(stage, TrainStage)]


@cache
def code_version() -> str:
    """A hash over the package's own source, so that changed code does not find an old artifact."""
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
    """Every node that the recipe asks for. Keys hold code, configuration, inputs, data, seed, number format, device.

    `threads` are those of every node, or for each model of the recipe those of the nodes that work with it.

    Raises `UserError` for a stage at equal compute that has nothing left to spend, and for what the tasks refuse.
    """
    plan = Plan(recipe)
    if "tokenizer" in [*recipe.models, *(stage.name for stage in recipe.stages)]:
        raise UserError("recipe: 'tokenizer' is the name of what the section tokenizer makes; give the model another")
    # As JSON: YAML knows dates, which keys do not.
    options = recipe.model_dump(mode="json", include={"tasks"})["tasks"]
    identities = {
        name: [options[name], *_task_identity(name, given, data_dir, base)] for name, given in recipe.tasks.items()
    }
    common = {
        "code": code_version(),
        "libraries": {name: version(name) for name in LIBRARIES},
        "seed": recipe.seed,
        "dtype": dtype,
        "device": device,
    }
    models = {name: _model_identity(recipe, name, base) for name in recipe.models}

    def add(name: str, kind: str, target: str, config: Any, needs: list[str], inputs: list[str], count: int) -> None:
        keys = {need: plan.nodes[need].key for need in needs}
        origins = {model: models[model] for model in inputs if model in models}
        data = {"kind": kind, "name": target, "config": config, "needs": keys, "models": origins, "threads": count}
        key = content_key(common | data)
        plan.nodes[name] = Node(name, kind, key, target, tuple(needs), tuple(inputs), count)

    def tokens(inputs: list[str]) -> list[str]:
        fresh = any(name in recipe.models and recipe.models[name].new is not None for name in inputs)
        return ["tokenizer"] if fresh else []

    def tasks(names: list[str] | None) -> Any:
        return {name: identities[name] for name in names or recipe.tasks}

    if recipe.tokenizer is not None:
        config = [recipe.tokenizer.model_dump(), tasks(None)]
        add("tokenizer", "tokenizer", "tokenizer", config, [], [], _threads([], recipe, threads))
    for stage in recipe.stages:
        inputs = _inputs(stage, recipe)
        needs = [name for name in inputs if name in plan.nodes] + tokens(inputs)
        read = tasks(_tasks_read(stage, recipe))
        config = [stage.model_dump(mode="json", exclude={"checkpoint_seconds"}), read, *_rewards(stage, base)]
        if isinstance(stage, DatasetStage):
            loaded = {name: load_task(name, options, data_dir, base) for name, options in recipe.tasks.items()}
            config.append([content_of(stage.steps, loaded, base, data_dir), _tokenizer_identity(stage, recipe, base)])
        if isinstance(stage, TrainStage) and stage.validation is not None:
            # The part of the evaluation's settings that validation follows.
            chosen = stage.validation.tasks or recipe.evaluation.tasks
            config.append([recipe.evaluation.model_dump(include={"max_new_tokens", "batch"}), tasks(chosen)])
        if isinstance(stage, TrainStage) and stage.equal_compute is not None:
            target = declared_flops(recipe, stage.equal_compute)
            config.append(target)
            if target is None:
                needs.append(stage.equal_compute)
            else:
                remaining_flops(stage, target, declared_flops(recipe, stage.from_) or 0.0)
        add(stage.name, stage.kind, stage.name, config, needs, inputs, _threads(inputs, recipe, threads, stage))
    protocol = recipe.evaluation.model_dump(mode="json", exclude={"stages"})
    for name in plan.measured:
        needs = ([name] if name in plan.nodes else []) + tokens([name])
        config = [protocol, tasks(recipe.evaluation.tasks)]
        add(f"evaluate {name}", "evaluate", name, config, needs, [name], _threads([name], recipe, threads))
    return plan


def _threads(
    inputs: Iterable[str], recipe: Recipe, threads: int | Mapping[str, int], stage: Stage | None = None
) -> int:
    """The threads of a node: its stage's own, or as many as the largest of the models that its inputs began as wants,
    and at least one for each of its processes."""
    if stage is not None and stage.threads is not None:
        return stage.threads
    if isinstance(threads, int):
        return threads
    fewest = stage.processes if isinstance(stage, TrainStage) else 1
    makers = {other.name for other in recipe.stages if not isinstance(other, TrainStage)}
    return max([fewest, *(threads[recipe.first_model_name(name)] for name in inputs if name not in makers)])


def _tasks_read(stage: Stage, recipe: Recipe) -> list[str]:
    """Names of the tasks whose problems a stage works on."""
    if isinstance(stage, DatasetStage):
        return sorted(recipe.tasks)
    readers = list(stage.sources.values()) if isinstance(stage, TrainStage) else [stage]
    return sorted({name for reader in readers for name in reader.tasks or recipe.tasks})


def _rewards(stage: Stage, base: Path) -> list[str]:
    """The content of the user's own files that the stage's rewards are in."""
    sources = stage.sources.values() if isinstance(stage, TrainStage) else ()
    parts = [part for source in sources if isinstance(source, Rollouts) for part in source.reward]
    files = [reward_bytes(part.function, base) for part in parts if isinstance(part, FunctionReward)]
    return [hashlib.sha256(content).hexdigest() for content in files]


def _inputs(stage: Stage, recipe: Recipe) -> list[str]:
    """Names of the models and stages that a stage reads."""
    if isinstance(stage, TrainStage):
        penalties = [o.reference for o in stage.objectives if isinstance(o, PolicyGradient)]
        references = [reference.model for reference in penalties if reference is not None]
        return list(dict.fromkeys([stage.from_, *teachers_of(stage), *references, *answers_of(stage)]))
    if isinstance(stage, DatasetStage):
        counting = [stage.tokenizer] if stage.tokenizer in recipe.models else []
        return list(dict.fromkeys([*stage.models, *stage.reads, *counting]))
    answers = [stage.from_] if isinstance(stage, TeacherLogprobsStage) and stage.from_ is not None else []
    return [stage.model, *answers]


def _task_identity(name: str, options: dict[str, Any], data_dir: Path | None, base: Path) -> list[Any]:
    """The bytes of the user's own file, and the content of the data that a task reads."""
    fingerprint = getattr(load_task(name, options, data_dir, base), "fingerprint", None)
    own = hashlib.sha256(task_bytes(name, options, base)).hexdigest()
    return [own, fingerprint() if fingerprint is not None else None]


def _tokenizer_identity(stage: DatasetStage, recipe: Recipe, base: Path) -> str | None:
    """The content of a tokenizer's folder that is no model of the recipe's."""
    if stage.tokenizer is None or stage.tokenizer in recipe.models:
        return None
    file = Path(origin_of_tokenizer(stage.tokenizer, base)) / "tokenizer.json"
    return file_hash(file) if file.is_file() else None


def _model_identity(recipe: Recipe, name: str, base: Path) -> Any:
    spec = recipe.models[name]
    return [_weights_identity(spec, base), spec.chat_template_kwargs, spec.control_tokens]


def _weights_identity(spec: ModelSpec, base: Path) -> Any:
    if spec.folder is not None:
        return folder_hash(base / Path(spec.folder).expanduser())
    if spec.endpoint is not None:
        # The first server names the model; others are there to share the work.
        own = base / Path(spec.tokenizer).expanduser() if spec.tokenizer is not None else None
        tokenizer = folder_hash(own) if own is not None and own.is_dir() else spec.tokenizer
        return {"endpoint": spec.urls[0], "model": spec.model, "tokenizer": tokenizer}
    return spec.model_dump(mode="json", include={"new", "hub", "revision"})
