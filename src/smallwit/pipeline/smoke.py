"""Shrink a recipe for `--smoke`: two real steps a stage, to test it before it costs anything."""

from smallwit.recipe.schema import Recipe
from smallwit.recipe.stage import SMOKE_PROBLEMS, SMOKE_TOKENS


def smoke_recipe(recipe: Recipe) -> Recipe:
    """Return the recipe with the smoke form of each stage, measured on two problems a task.

    A model with random weights answers nothing correctly. So rollouts are rewarded for length, every answer is kept, no
    answer of a dataset is verified, and problems of any difficulty pass. Of several seeds two are run.
    """
    few = {"problems": SMOKE_PROBLEMS, "max_new_tokens": SMOKE_TOKENS}
    small = {
        "name": f"{recipe.name}-smoke"[:100],
        "seeds": min(recipe.seeds, 2),
        "stages": [stage.smoke() for stage in recipe.stages],
        "evaluation": recipe.evaluation.model_copy(update=few),
    }
    return Recipe.model_validate(recipe.model_copy(update=small).model_dump(mode="json", by_alias=True))
