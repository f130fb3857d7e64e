"""What a recipe says of the training FLOPs of its models: who pays for what, and what is left to spend."""

from smallwit.errors import UserError
from smallwit.recipe.schema import (
    DatasetStage,
    Demonstrations,
    Recipe,
    RejectionSamplingStage,
    Rollouts,
    Stage,
    TeacherLogprobsStage,
    TrainStage,
)


def declared_flops(recipe: Recipe, name: str) -> float | None:
    """The FLOPs that a model is charged with as the recipe declares them; `None` if a stage that counts has none."""
    stages = {stage.name: stage for stage in recipe.stages}
    total = 0.0
    for paid in paid_stages(recipe, name):
        cost = declared_cost(stages[paid])
        if cost is None:
            return None
        total += cost
    return total


def declared_cost(stage: Stage) -> float | None:
    """The FLOPs that a stage itself may spend, if the recipe says so. A dataset that no model helps with costs none."""
    if isinstance(stage, TrainStage | RejectionSamplingStage):
        return stage.flops
    return 0.0 if isinstance(stage, DatasetStage) and not stage.models else None


def remaining_flops(stage: TrainStage, target: float, spent: float) -> float:
    """What a stage at equal compute may spend when the path to match costs `target`, and that to its start `spent`.

    Raises `UserError` when that is nothing.
    """
    if target <= spent:
        raise UserError(
            f"stage {stage.name}: {stage.equal_compute} costs {target:.3g} FLOPs in all, and {stage.from_}, from which "
            f"it starts, costs {spent:.3g} already; let it start from an earlier model"
        )
    return target - spent


def paid_stages(recipe: Recipe, name: str) -> list[str]:
    """The stages that a model is charged with, each once: those on its path, and what teachers answered or stored."""
    stages = {stage.name: stage for stage in recipe.stages}
    paid: list[str] = []
    waiting = [name]
    while waiting:
        stage = stages.get(waiting.pop())
        if stage is None or stage.name in paid:
            continue
        paid.append(stage.name)
        if isinstance(stage, TrainStage):
            stores = [name for name in teachers_of(stage) if isinstance(stages.get(name), TeacherLogprobsStage)]
            waiting += [stage.from_, *answers_of(stage), *stores]
        elif isinstance(stage, TeacherLogprobsStage) and stage.from_ is not None:
            waiting.append(stage.from_)
        elif isinstance(stage, DatasetStage):
            waiting += stage.reads
    return paid


def answers_of(stage: TrainStage) -> list[str]:
    """The rejection_sampling and dataset stages that a stage learns from."""
    sources = [source for source in stage.sources.values() if isinstance(source, Demonstrations | Rollouts)]
    return [source.from_ for source in sources if source.from_ is not None]


def teachers_of(stage: TrainStage) -> list[str]:
    """The models, train stages and teacher_logprobs stages that a stage's objectives compare with."""
    return [name for objective in stage.objectives for name in objective.teachers]
