"""Share a budget out to the stages of a pipeline, and check that nothing is spent beside it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from smallwit.errors import UserError
from smallwit.recipe.schema import Recipe
from smallwit.recipe.section import kinds_of, tags_of
from smallwit.recipe.stage import Stage
from smallwit.study.schema import StudyBudget

BUDGET_KEYS = ("steps", "epochs", "flops", "equal_compute")
"""Keys that bound a stage of a recipe; a study bounds its stages by shares of its own budget."""
Settings = dict[str, Any]
Refuse = Callable[..., UserError]


def makes(stage: Mapping[str, Any]) -> str | None:
    """Return what a stage with these settings makes; `None` for an unknown kind, which validation refuses."""
    return next((kind.makes for kind in kinds_of(Stage) if stage.get("kind") in tags_of(kind)), None)


def share_out(entries: Sequence[Settings], budget: StudyBudget, amount: float, refuse: Refuse) -> None:
    """Replace `share` by the part of `amount` that an entry may spend; one entry without gets the rest.

    `refuse` makes the error for a message, the number of an entry and a key of it.
    """
    key, counted = _unit(budget)
    spent, rest = 0.0, None
    for number, stage in enumerate(entries):
        share = stage.pop("share", None)
        if share is not None and (isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1):
            raise refuse(f"share must be a number above 0, at most 1; got {share}", number, "share")
        if makes(stage) not in counted:
            if share is not None:
                what = f"share is a part of the budget in {key}, and this stage is not counted"
                raise refuse(f"{what}; give it a budget of its own", number, "share")
            continue
        unbound = next((name for name in BUDGET_KEYS if name != key and stage.get(name) is not None), None)
        if unbound is not None:
            raise refuse(f"the budget is in {key}; give share in place of {unbound}", number, unbound)
        if share is not None:
            stage[key] = share * amount
        if stage.get(key) is not None:
            spent += stage[key]
        elif rest is not None:
            raise refuse("has no share, as an entry before; only one may get the rest", number)
        else:
            rest = stage
    left = amount - spent
    if rest is not None:
        rest[key] = left
    if left < -1e-9 * amount or (rest is None and left > 1e-9 * amount and spent) or (rest is not None and left <= 0):
        more = "more" if left <= 0 else "less"
        raise refuse(f"its entries take {spent:.4g} {key}, {more} than the budget of {amount:.4g}; change their shares")
    if key == "tokens":
        for stage in entries:
            stage.update({key: int(stage[key])} if stage.get(key) is not None else {})


def check_arm(recipe: Recipe, end: str, after: str, budget: StudyBudget, refuse: Refuse) -> None:
    """Check that all that counts on the way from `after` to `end` has a bound. `refuse` makes the error."""
    before = {stage.name for stage in recipe.charged_stages(after)}
    _, counted = _unit(budget)
    for stage in recipe.charged_stages(end):
        if stage.name in before:
            continue
        if budget.flops is not None and stage.makes in counted and stage.declared_flops is None:
            what = f"what stage '{stage.name}' ({stage.kind}) spends counts, and it has no bound in FLOPs"
            raise refuse(f"{what}; give budget.answers: free, or make it before the study")
        live = [name for name in stage.asked_models() if _is_model(recipe, name)]
        if budget.flops is None and stage.makes == "model" and live:
            what = f"stage '{stage.name}' reads teacher '{live[0]}' as it trains, and nothing bounds these tokens"
            raise refuse(f"{what}; give a budget in flops")


def _unit(budget: StudyBudget) -> tuple[str, set[str]]:
    """Return the key of stages that the budget bounds, and the artifacts that count."""
    if budget.flops is None:
        return "tokens", {"rows"}
    return "flops", {"model", "rows", "logprobs"} if budget.answers == "counted" else {"model"}


def _is_model(recipe: Recipe, name: str) -> bool:
    stage = recipe.stage(name)
    return stage is None or stage.makes == "model"
