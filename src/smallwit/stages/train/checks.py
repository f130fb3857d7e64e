"""Check a train stage: its objectives against its sources, and its teachers against the rest of the recipe."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from smallwit.errors import UserError
from smallwit.objectives.distillation import Distillation
from smallwit.objectives.settings import Objective, check_objectives, compares_groups
from smallwit.stages.teacher_logprobs import TeacherLogprobsStage
from smallwit.suggestions import hint
from smallwit.tasks.reward_function import reward_function
from smallwit.training.settings import UNGRADED, Demonstrations, Rollouts, Source, SourceSettings

if TYPE_CHECKING:
    from smallwit.recipe.check import Check
    from smallwit.recipe.schema import Recipe
    from smallwit.stages.train import TrainStage

_SCHEDULE = {"schedule", "warmup", "decay", "final"}
_FREE = ("name", "continues", "steps", "flops", "threads", "checkpoint_seconds")
"""Settings in which a stage may differ from the one that it continues."""


def check_sources(sources: Mapping[str, Source], objectives: Sequence[Objective]) -> None:
    """Check that each objective fits its source, and each source has an objective. Raises `ValueError`."""
    check_objectives(objectives, sources)
    for name, source in sources.items():
        for key in ("resample", "cooldown"):
            if isinstance(source, Rollouts) and getattr(source, key) and not compares_groups(objectives, name):
                raise ValueError(
                    f"source '{name}' has {key}, and no objective there compares the completions of a problem; "
                    "leave it out"
                )
    unread = set(sources) - {objective.source for objective in objectives}
    if unread:
        raise ValueError(f"no objective reads source {', '.join(sorted(unread))}")


def check_qat(stage: "TrainStage") -> None:
    """Check that a stage can train the weights of an export. Raises `ValueError`."""
    if stage.lora is not None:
        raise ValueError("qat rounds the weights that are trained, and lora trains others; leave one of them out")
    if stage.save_dtype == "bfloat16":
        raise ValueError("qat publishes float32, as bfloat16 would round weights once more; leave save_dtype out")
    rewarded = [objective.kind for objective in stage.objectives if objective.estimator is not None]
    if rewarded:
        what = f"{rewarded[0]} compares the probabilities of rounded weights with those of the weights that sampled"
        raise ValueError(f"qat: {what}; distil from the float model (forward_kl) after it")


def check_tasks(check: "Check", source: SourceSettings, *place: str | int) -> None:
    """Check the tasks of a source, and that each has a weight where weights are numbers. Raises `UserError`."""
    if not isinstance(source, Demonstrations | Rollouts):
        check.task_names(source.tasks, *place, "tasks")
        return
    check.task_names(source.tasks, *place, "tasks", again="give it a larger weight (weights: {TASK: NUMBER})")
    if isinstance(source.weights, str):
        return
    read = source.tasks or list(check.recipe.tasks)
    # Rows of a dataset may have no task.
    known = [*read, UNGRADED] if source.rows_from is not None and source.tasks is None else read
    for name in source.weights:
        if name not in known:
            what = f"weights: the source does not read a task '{name}'; {hint(name, known)}"
            raise check.refuse(what, *place, "weights", name)
    missing = [name for name in read if name not in source.weights]
    if missing:
        raise check.refuse(f"weights has no number for task '{missing[0]}'; add one", *place, "weights")


def check_continued(check: "Check", stage: "TrainStage", name: str, *place: str | int) -> None:
    """Check that a stage goes on with an earlier one of its kind, settings and unit of budget. Raises `UserError`."""
    check.model_before("continues", name, *place)
    other = check.stages.get(name)
    if other is None or other.kind != stage.kind:
        raise check.refuse(f"continues '{name}' is no train stage; name one, or leave it out", *place)
    own, others = (
        each.model_dump(mode="json", by_alias=True, exclude={"optimizer": _SCHEDULE} | dict.fromkeys(_FREE, True))
        for each in (stage, other)
    )
    differs = [key for key in own if own[key] != others[key]]
    if differs:
        what = f"continues '{name}', and its {differs[0]} differs; only budget and schedule may"
        raise check.refuse(what, *place)
    if not any(getattr(stage, unit) and getattr(other, unit) for unit in ("steps", "flops")):
        raise check.refuse(f"continues '{name}': both need a budget in steps, or both in flops", *place)


def check_engines(check: "Check", sources: Mapping[str, Source], *place: str | int) -> None:
    """Check that the machine has what the engines of rollouts ask for. Raises `UserError`."""
    for name, source in sources.items():
        try:
            if isinstance(source, Rollouts):
                source.engine.check_machine()
        except UserError as error:
            raise check.refuse(str(error), *place, name, "engine") from error


def check_reward(check: "Check", source: SourceSettings, *place: str | int) -> None:
    """Check that the user's reward functions can be loaded. Raises `UserError`."""
    for index, function in source.reward_functions():
        try:
            reward_function(function, check.base)
        except UserError as error:
            raise check.refuse(str(error), *place, index, "function") from error


def check_teacher(check: "Check", stage: "TrainStage", objective: Distillation, *place: str | int) -> None:
    """Check that a teacher is a model, or stored log-probs that fit the objective. Raises `UserError`."""
    store = check.stages.get(objective.teacher)
    source = stage.sources[objective.source]
    if isinstance(store, TeacherLogprobsStage):
        check.before("teacher", store.name, *place, "teacher")
        check.complain(_stored_teacher(store, objective, source, check.recipe), *place)
    else:
        check.model_before("teacher", objective.teacher, *place, "teacher", weights=False)
        check.complain(_remote_teacher(objective, stage, check.recipe), *place)


def _stored_teacher(
    store: TeacherLogprobsStage, objective: Distillation, source: SourceSettings, recipe: "Recipe"
) -> tuple[str, str] | None:
    """Return why a store does not fit an objective and its source, and the key to change; `None` if it fits."""
    if objective.cross_tokenizer:
        return f"{objective.kind} needs the teacher itself, not its store; name a model", "teacher"
    name, stored = objective.source, f"the store of teacher_logprobs stage '{store.name}'"
    if not isinstance(source, Demonstrations):
        what = f"{stored} knows the demonstrations it was made of, and source '{name}' is {source.kind}"
        return f"{what}; name the model '{store.model}' as teacher", "teacher"
    if objective.temperature != store.temperature:
        what = f"{stored} is of temperature {store.temperature:g}, the objective's is {objective.temperature:g}"
        return f"{what}; make them equal", "temperature"
    if objective.top_k is not None:
        what = f"{stored} holds the {store.k} likeliest tokens whatever top_k is"
        return f"{what}; leave top_k out, or change k there", "top_k"
    if source.from_ != store.from_:
        ours, theirs = (repr(each.from_) if each.from_ else "the tasks" for each in (source, store))
        what = f"{stored} is of solutions from {theirs}, source '{name}' reads those from {ours}"
        return f"{what}; make them equal", "teacher"
    if source.max_length is not None and source.too_long == "cut":
        what = f"{stored} is of whole solutions, source '{name}' cuts them at max_length"
        return f"{what}; leave the longer ones out (too_long: leave_out)", "teacher"
    if source.loss_on != store.loss_on:
        what = f"{stored} has loss_on: {store.loss_on}, source '{name}' has {source.loss_on}"
        return f"{what}; make them equal", "teacher"
    missing = set(source.tasks or recipe.tasks) - set(store.tasks or recipe.tasks)
    if missing:
        what = f"{stored} does not have task '{min(missing)}', which source '{name}' reads"
        return f"{what}; add it there", "teacher"
    if store.limit is not None and (source.limit is None or source.limit > store.limit):
        wanted = "all" if source.limit is None else source.limit
        what = f"{stored} has {store.limit} problems of each task, source '{name}' reads {wanted}"
        return f"{what}; make limit there as large", "teacher"
    if store.limit is not None and source.part_order != store.order:
        what = f"{stored} has {store.limit} problems of each task (order: {store.order})"
        return f"{what}, source '{name}' takes others (order: {source.order}); make order there equal", "teacher"
    return None


def _remote_teacher(objective: Distillation, stage: "TrainStage", recipe: "Recipe") -> tuple[str, str] | None:
    """Return what an objective needs that a teacher behind an endpoint does not give, and the key to change.

    Servers give the likeliest tokens at temperature 1, of a text in the student's tokens.
    """
    if not recipe.is_remote(objective.teacher):
        return None
    name, first = f"teacher '{objective.teacher}' is behind an endpoint", f"models.{objective.teacher}.tokenizer"
    if objective.cross_tokenizer:
        what = f"{name}, and {objective.kind} needs all its probabilities"
        return f"{what}; learn from its answers (a rejection_sampling stage)", "teacher"
    if recipe.models[objective.teacher].tokenizer is None:
        return f"{name}, and its tokenizer is needed here; give {first}", "teacher"
    if objective.temperature != 1.0:
        return f"{name}, which gives log-probs at temperature 1 only; leave temperature out", "temperature"
    if objective.top_k is None:
        return f"{name}, which gives its likeliest tokens only; give top_k, for example 20", "teacher"
    others = [o.top_k for o in stage.objectives if isinstance(o, Distillation) and o.teacher == objective.teacher]
    if set(others) != {objective.top_k}:
        return f"{name}, and is asked for several top_k: {', '.join(map(str, others))}; give one", "top_k"
    return None
