"""What a recipe says of the training FLOPs of its models: who pays for what, and what is left to spend."""

from smallwit.errors import UserError
from smallwit.recipe import Demonstrations, Recipe, TrainStage


def declared_flops(recipe: Recipe, name: str) -> float | None:
    """The FLOPs that a model is charged with as the recipe declares them; `None` if a stage that counts has none."""
    stages = {stage.name: stage for stage in recipe.stages}
    parts = [stages[paid].flops for paid in paid_stages(recipe, name)]
    return None if None in parts else sum(part for part in parts if part is not None)


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
    """The stages that a model is charged with: those on its path, and the answers collected for it, each once."""
    stages = {stage.name: stage for stage in recipe.stages}
    paid: list[str] = []
    waiting = [name]
    while waiting:
        stage = stages.get(waiting.pop())
        if stage is None or stage.name in paid:
            continue
        paid.append(stage.name)
        if isinstance(stage, TrainStage):
            waiting += [stage.from_, *answers_of(stage)]
    return paid


def answers_of(stage: TrainStage) -> list[str]:
    """The answers stages that a stage learns from."""
    return [s.from_ for s in stage.sources.values() if isinstance(s, Demonstrations) and s.from_ is not None]
