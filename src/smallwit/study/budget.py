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


def kind_of(stage: Mapping[str, Any]) -> type[Stage] | None:
    """Return the class of a stage with these settings; `None` for an unknown kind, which validation refuses."""
    return next((kind for kind in kinds_of(Stage) if stage.get("kind") in tags_of(kind)), None)


def makes_model(stage: Mapping[str, Any]) -> bool:
    """Return whether a stage with these settings makes a model."""
    kind = kind_of(stage)
    return kind is not None and kind.makes == "model"


def share_out(entries: Sequence[Settings], budget: StudyBudget, bound: float, refuse: Refuse) -> None:
    """Replace `share` by the part of `bound` that an entry may spend; one entry without gets the rest.

    `bound` is in FLOPs or tokens. `refuse` makes the error for a message, the number of an entry and a key of it.
    """
    key = _key(budget)
    spent, rest = 0.0, None
    for number, stage in enumerate(entries):
        share = stage.pop("share", None)
        if share is not None and not (_is_number(share) and 0 < share <= 1):
            raise refuse(f"share must be a number above 0, at most 1; got {share}", number, "share")
        kind = kind_of(stage)
        if kind is None or kind.makes not in budget.counted:
            if share is not None:
                what = f"share is a part of the budget in {budget.unit}, and this stage is not counted"
                raise refuse(f"{what}; give it a budget of its own", number, "share")
            continue
        if key not in kind.model_fields:
            what = f"what a stage of kind {stage['kind']} spends counts, and has no bound in {key}"
            raise refuse(f"{what}; give budget.answers: free", number)
        unbound = next((k for k in BUDGET_KEYS if (k != key or budget.timed) and stage.get(k) is not None), None)
        if unbound is not None:
            raise refuse(f"the budget is in {budget.unit}; give share in place of {unbound}", number, unbound)
        if share is not None:
            stage[key] = share * bound
        given = stage.get(key)
        if given is not None:
            if not _is_number(given):
                raise refuse(f"{key} must be a number; got {given}", number, key)
            spent += given
        elif rest is not None:
            raise refuse("has no share, as an entry before; only one may get the rest", number)
        else:
            rest = stage
    left = bound - spent
    if rest is not None:
        rest[key] = left
    if left < -1e-9 * bound or (rest is None and left > 1e-9 * bound and spent) or (rest is not None and left <= 0):
        much = "too much" if left <= 0 else "too little"
        raise refuse(f"its entries take {100 * spent / bound:.4g} % of the budget, {much}; change their shares")
    if key == "tokens":
        for stage in entries:
            if stage.get(key) is not None:
                stage[key] = int(stage[key])


def check_arm(recipe: Recipe, own: Sequence[Stage], budget: StudyBudget, bound: float, refuse: Refuse) -> None:
    """Check that the stages of an arm spend its budget, and no teacher's tokens beside it. `refuse` makes the error."""
    if _key(budget) == "flops":
        spending = [stage for stage in own if stage.makes in budget.counted]
        if abs(sum(stage.declared_flops or 0.0 for stage in spending) - bound) > 1e-6 * bound:
            what = f"counts {', '.join(stage.name for stage in spending)}, which do not spend the budget"
            raise refuse(f"{what}; make what it reads of the base recipe an entry, or give budget.answers: free")
        return
    for stage in own:
        live = [name for name in stage.asked_models() if stage.makes == "model" and _is_model(recipe, name)]
        if live:
            what = f"stage '{stage.name}' reads teacher '{live[0]}' as it trains, and nothing bounds these tokens"
            raise refuse(f"{what}; give a budget in flops")


def _key(budget: StudyBudget) -> str:
    """Return the key of stages that the budget bounds."""
    return "tokens" if budget.unit == "teacher_tokens" else "flops"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_model(recipe: Recipe, name: str) -> bool:
    stage = recipe.stage(name)
    return stage is None or stage.makes == "model"
