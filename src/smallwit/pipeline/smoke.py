"""`--smoke`: the whole recipe in two real steps a stage, to see that it fits before it costs anything."""

from typing import Any

from smallwit.recipe.schema import DatasetStage, Recipe

STEPS = 2
NEW_TOKENS = 8
PROBLEMS = 2
GROUP = 4
"""Completions of a prompt: so many random texts are not all of one length, and a group of equals teaches nothing."""


def smoke_recipe(recipe: Recipe) -> Recipe:
    """The same stages, models and objectives with two optimizer steps each on two examples.

    Demonstrations are the first two of each task, so that a teacher_logprobs stage reads the same. A model with
    random weights gets nothing right. Rollouts are therefore rewarded for length, every answer is kept, no answer of a
    dataset is verified, and problems of any difficulty pass.
    """
    data: dict[str, Any] = recipe.model_dump(mode="json", by_alias=True)
    data["name"] = f"{recipe.name}-smoke"[:100]
    for settings, stage in zip(recipe.stages, data["stages"], strict=True):
        if stage["kind"] == "rejection_sampling":
            stage |= {"problems": PROBLEMS, "samples": 1, "max_new_tokens": NEW_TOKENS, "keep": "all"}
            continue
        if isinstance(settings, DatasetStage):
            smoke = (step.smoke(PROBLEMS, NEW_TOKENS) for step in settings.steps)
            stage["steps"] = [step.model_dump(mode="json", by_alias=True) for step in smoke if step is not None]
            continue
        if stage["kind"] == "teacher_logprobs":
            stage["limit"] = PROBLEMS
            continue
        stage |= {"steps": STEPS, "flops": None, "equal_compute": None}
        stage["processes"] = min(stage["processes"], PROBLEMS)
        if stage["validation"] is not None:
            stage["validation"] |= {"every": STEPS, "problems": PROBLEMS}
        for source in stage["sources"].values():
            if source["kind"] == "rollouts":
                source |= {"prompts": 1, "group": GROUP, "max_new_tokens": NEW_TOKENS, "reward": "length"}
                source["updates"] = min(source["updates"], STEPS)
            else:
                source["batch"] = PROBLEMS
            if source["kind"] == "demonstrations":
                source["limit"] = PROBLEMS
    data["evaluation"] |= {"problems": PROBLEMS, "max_new_tokens": NEW_TOKENS}
    return Recipe.model_validate(data)
