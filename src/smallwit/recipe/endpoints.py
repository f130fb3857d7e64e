"""What a recipe may ask of models behind endpoints: each function says what is wrong, and with which key, or `None`."""

from smallwit.errors import UserError
from smallwit.objectives.distillation import Distillation
from smallwit.pipeline.costs import teachers_of
from smallwit.recipe.schema import (
    DatasetStage,
    ModelSpec,
    Recipe,
    RejectionSamplingStage,
    Stage,
    TeacherLogprobsStage,
    TrainStage,
)

Complaint = tuple[str, str] | None


def unusable(name: str, model: ModelSpec) -> Complaint:
    """URLs must be ones that can be, and that `--offline` allows."""
    # Imported here: it brings the HTTP client along.
    from smallwit.inference.endpoint_client import Endpoint

    try:
        Endpoint(model.urls, model.model or "", model.key_env).key()
    except UserError as error:
        return f"models.{name}: {error}", "endpoint"
    return None


def without_weights(role: str, name: str, recipe: Recipe) -> str | None:
    """A role that needs a model's weights is none for an endpoint."""
    if not _behind(recipe, name):
        return None
    remedy = "store its log-probs (a teacher_logprobs stage), or learn from its answers (a rejection_sampling stage)"
    return f"{role} '{name}' is behind an endpoint, its weights are not here; {remedy}"


def teacher(objective: Distillation, stage: TrainStage, recipe: Recipe) -> Complaint:
    """A teacher behind an endpoint gives its likeliest tokens at temperature 1, of a text in the student's tokens."""
    if not _behind(recipe, objective.teacher):
        return None
    name, first = f"teacher '{objective.teacher}' is behind an endpoint", f"models.{objective.teacher}.tokenizer"
    if objective.cross_tokenizer:
        return (
            f"{name}, and uld needs all its probabilities; learn from its answers (a rejection_sampling stage)",
            "teacher",
        )
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


def beyond(stage: RejectionSamplingStage | TeacherLogprobsStage, recipe: Recipe) -> Complaint:
    """What a stage asks of an endpoint must be something that endpoints can do."""
    if not _behind(recipe, stage.model):
        return None
    if isinstance(stage, RejectionSamplingStage):
        if stage.flops is None:
            return None
        what = f"'{stage.model}' is behind an endpoint, and what its answers cost in FLOPs is not known"
        return f"{what}; leave flops out, problems and samples bound the stage", "flops"
    if recipe.models[stage.model].tokenizer is None:
        what = f"'{stage.model}' is behind an endpoint, and a teacher_logprobs stage needs its tokenizer here"
        return f"{what}; give models.{stage.model}.tokenizer", "model"
    if stage.temperature != 1.0:
        what = f"an endpoint gives log-probs at temperature 1, not at {stage.temperature:g}"
        return f"{what}; leave temperature out", "temperature"
    return None


def unpriced(stage: TrainStage, paid: list[str], recipe: Recipe) -> str | None:
    """A stage at equal compute must know what the other path (of the stages `paid`) costs."""
    for other in (other for other in recipe.stages if other.name in paid):
        if any(_behind(recipe, name) for name in _asked(other)):
            what = f"equal_compute '{stage.equal_compute}': its path has '{other.name}', and what a model behind an"
            return f"{what} endpoint costs is not known; give '{stage.name}' a budget in steps or flops"
    return None


def unmeasured(name: str, recipe: Recipe) -> str | None:
    """A run measures models whose weights are here."""
    if not _behind(recipe, name):
        return None
    spec = recipe.models[name]
    what = f"evaluation.stages: '{name}' is behind an endpoint, and a run measures models that are here"
    return f"{what}; measure it by smallwit eval openai:{','.join(spec.urls)}#{spec.model}"


def _asked(stage: Stage) -> list[str]:
    """The models, besides the one that it trains, that a stage asks."""
    if isinstance(stage, TrainStage):
        return teachers_of(stage)
    return stage.models if isinstance(stage, DatasetStage) else [stage.model]


def _behind(recipe: Recipe, name: str) -> bool:
    return name in recipe.models and recipe.models[name].endpoint is not None
