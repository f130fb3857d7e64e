"""Check a recipe before anything runs: its references, this machine, the files of its models, its tasks."""

import os
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from smallwit.device import resolve_device
from smallwit.errors import UserError
from smallwit.inference.endpoint_client import Endpoint
from smallwit.pipeline.plan import planned_stages
from smallwit.pipeline.seeds import over_seeds
from smallwit.recipe.check import Check
from smallwit.recipe.model import ModelSpec
from smallwit.recipe.schema import Recipe
from smallwit.recipe.stage import TaskNeed
from smallwit.recipe.yaml import Lines
from smallwit.storage.paths import path_of
from smallwit.tasks import Task, load_task
from smallwit.tasks.dataset import DatasetTask
from smallwit.tasks.trial import Trial, try_out
from smallwit.tasks.user_task import UserTask
from smallwit.verify import code
from smallwit.verify.consent import OPTION

INSPECTED_PROBLEMS = 100
"""Problems of a task that are checked. If none of them has a worked solution, the task is taken to have none."""


def check_recipe(
    recipe: Recipe, base: Path, data_dir: Path | None, *, lines: Lines | None = None, read_data: bool = True
) -> None:
    """Check a recipe before it runs. Raises `UserError` with one line that names the file and the line.

    `base` is the folder that paths in the recipe are relative to. `lines` comes from `read_recipe`; without it
    messages name only the recipe. `read_data=False` skips the checks that may need the hub: whether models can be
    loaded from there, and whether the tasks have the problems that the stages need.
    """
    check = Check(recipe, base, lines or Lines(f"recipe {recipe.name}"))
    check.all()
    if recipe.seeds > 1 and all(seed is None for _, seed in over_seeds(recipe, planned_stages(recipe))):
        what = f"seeds is {recipe.seeds}, and nothing in the recipe depends on the seed; leave it out"
        raise check.refuse(what, "seeds")
    # Checks that need files and libraries come last: they are slow.
    _check_device(check)
    for index, stage in enumerate(recipe.stages):
        stage.check_machine(check, ("stages", index), read_data)
    for name, model in recipe.models.items():
        _check_model(check, name, model, ask_hub=read_data)
    _check_tasks(check, data_dir, read_data)


def _check_device(check: Check) -> None:
    if check.recipe.device not in ("auto", "cpu"):
        try:
            resolve_device(check.recipe.device)
        except UserError as error:
            raise check.refuse(str(error), "device") from error


# ---- models


def _check_model(check: Check, name: str, model: ModelSpec, ask_hub: bool) -> None:
    """Check that a model can be loaded: its files, its family, its tokenizer, or the URLs of its endpoint.

    With `ask_hub` the configuration and the tokenizer of a hub model are downloaded and checked.
    """
    place = ("models", name)
    if model.revision is not None and model.hub is None:
        raise check.refuse(f"models.{name}: revision belongs to a hub model; leave it out", *place, "revision")
    key = next((key for key in ("folder", "gguf", "hub", "endpoint") if getattr(model, key) is not None), "new")
    try:
        if model.folder is not None:
            folder = Path(os.path.normpath(check.base / path_of(model.folder)))
            if not folder.exists():
                # In a run's folder this name is a link to the artifact of a stage.
                first = "run the recipe that makes it first, or " if folder.name == "artifact" else ""
                raise UserError(f"folder {folder} is not there; {first}name a model folder")
            _require_loadable(folder, model)
        elif model.gguf is not None:
            # Imported here: it takes seconds.
            from smallwit.models.gguf_import import imported_folder

            path = Path(os.path.normpath(check.base / path_of(model.gguf)))
            if not path.is_file():
                raise UserError(f"file {path} is not there; name a GGUF file")
            _require_loadable(imported_folder(path), model)
        elif model.hub is not None and ask_hub:
            _require_loadable(model.hub, model)
        elif model.endpoint is not None:
            Endpoint(model.urls, model.model or "", model.key_env).key()
            if model.tokenizer is not None:
                # Imported here: it takes seconds.
                from smallwit.models.tokenizer import require_tokenizer

                key = "tokenizer"
                require_tokenizer(model.tokenizer, check.base, ask_hub)
    except UserError as error:
        raise check.refuse(f"models.{name}: {error}", *place, key) from error


def _require_loadable(origin: str | Path, model: ModelSpec) -> None:
    # Imported here: these libraries take seconds.
    from smallwit.models.chat import ChatTokenizer
    from smallwit.models.fit import fitting
    from smallwit.models.loading import load_config, require_weights
    from smallwit.training.families import require_family

    config = load_config(origin, model.revision)
    if isinstance(origin, Path):
        require_weights(origin, config)
    require_family(config, str(origin))
    chat = ChatTokenizer.load(
        origin,
        model.revision,
        chat_template_kwargs=model.chat_template_kwargs,
        control_tokens=model.control_tokens,
    )
    chat.ends  # noqa: B018  a tokenizer without any is refused here
    fitting(chat, config.get_text_config().vocab_size, str(origin))


# ---- tasks


def _check_tasks(check: Check, data_dir: Path | None, read_data: bool) -> None:
    """Check that tasks load, that this machine isolates programs well enough, and that the user's own code works.

    With `read_data` also check that the tasks have the problems that stages read.
    """
    recipe = check.recipe
    tasks = _load_tasks(check, data_dir)
    _check_isolation(check, tasks)
    needs = _task_needs(recipe)
    if read_data:
        read: set[tuple[str, str, int]] = set()
        for need in needs:
            if need[:3] not in read:
                read.add(need[:3])
                _has_problems(check, tasks[need.task], need)
    _try_out(check, tasks, [need for need in needs if need.what != "documents"], data_dir, read_data)


def _load_tasks(check: Check, data_dir: Path | None) -> dict[str, Task]:
    tasks = {}
    for name, options in check.recipe.tasks.items():
        try:
            tasks[name] = load_task(name, options, data_dir, check.base)
        except UserError as error:
            raise check.refuse(f"{error}{check.lines.changes('tasks', name)}", "tasks", name) from error
    return tasks


def _task_needs(recipe: Recipe) -> list[TaskNeed]:
    needs = [need for index, stage in enumerate(recipe.stages) for need in stage.task_needs(recipe, ("stages", index))]
    if recipe.model_stages:
        measured = recipe.evaluation.tasks or recipe.tasks
        needs += [TaskNeed(recipe.evaluation.split, task, 0, ("evaluation",)) for task in measured]
    return needs


def _check_isolation(check: Check, tasks: dict[str, Task]) -> None:
    """Raise `UserError` if a task runs programs, and this machine isolates them less than the user accepts."""
    recipe = check.recipe
    judged = [one for index, stage in enumerate(recipe.stages) for one in stage.judged_tasks(recipe, ("stages", index))]
    if recipe.model_stages or recipe.evaluation.stages:
        judged += [(name, ("evaluation",)) for name in recipe.evaluation.tasks or recipe.tasks]
    probed = False
    for name, place in judged:
        needed = tasks[name].isolation
        probed = probed or needed is not None
        accept = f"tasks.{name}.isolation: rlimits in the recipe, or {OPTION}"
        if refused := code.objection(f"task {name}", needed, accept):
            raise check.refuse(refused, *place)
    if probed:
        code.close()


def _try_out(
    check: Check, tasks: dict[str, Task], needs: list[TaskNeed], data_dir: Path | None, read_data: bool
) -> None:
    """Try the `verify` of each of the user's tasks, and each reward function, on an answer that should be correct."""
    recipe = check.recipe
    rewards: dict[str, dict[str, None]] = {name: {} for name in recipe.tasks}
    for stage in recipe.stages:
        for name, function in stage.reward_functions(recipe):
            rewards[name][function] = None
    for name, task in tasks.items():
        first = next((need for need in needs if need.task == name), None)
        readable = read_data or not isinstance(task, DatasetTask)
        if first is None or not (isinstance(task, UserTask) or (rewards[name] and readable)):
            continue
        split = "train" if first.what == "solutions" else first.what
        trial = Trial(name, recipe.tasks[name], data_dir, check.base, split, first.skip, tuple(rewards[name]))
        try:
            try_out(trial)
        except UserError as error:
            raise check.refuse(f"{error}{check.lines.changes('tasks', name)}", "tasks", name) from error


def _has_problems(check: Check, task: Task, need: TaskNeed) -> None:
    """Check that a task has the problems that a stage needs, so that training does not fail an hour later."""
    what, skip, place = need.what, need.skip, need.place
    if what == "documents":
        if next(iter(task.documents()), None) is None:
            raise check.refuse(f"task {task.name} has no documents; leave it out of this text source", *place)
        return
    split = "train" if what == "solutions" else what
    try:
        problems = task.problems(split)
        # A sequence is sliced and not iterated: it may generate its problems on access.
        span = (skip, skip + INSPECTED_PROBLEMS)
        first = problems[slice(*span)] if isinstance(problems, Sequence) else list(islice(problems, *span))
    except UserError as error:
        raise check.refuse(str(error), *place) from error
    if not first:
        behind = f" behind the first {skip}" if skip else ""
        raise check.refuse(f"task {task.name} has no {split} problems{behind}; ask for a task that has", *place)
    if what == "solutions" and all(problem.solution is None for problem in first):
        remedy = "collect some by a rejection_sampling stage, or leave the task out"
        raise check.refuse(f"task {task.name} has no worked solutions to learn from; {remedy}", *place)
