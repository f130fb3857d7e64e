"""`--smoke`: the whole recipe in two real steps a stage, to see that it fits before it costs anything."""

from typing import Any

from smallwit.recipe.schema import Recipe

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
    for stage in data["stages"]:
        if stage["kind"] == "rejection_sampling":
            stage |= {"problems": PROBLEMS, "samples": 1, "max_new_tokens": NEW_TOKENS, "keep": "all"}
            continue
        if stage["kind"] == "dataset":
            stage["steps"] = [_small_step(step) for step in stage["steps"] if step["kind"] != "verify"]
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


def _small_step(step: dict[str, Any]) -> dict[str, Any]:
    """A step of a dataset's construction on two problems a source, with short replies."""
    few = {"samples": 2, "max_new_tokens": NEW_TOKENS}
    match step["kind"]:
        case "gather":
            return step | {"sources": [source | {"limit": PROBLEMS} for source in step["sources"]]}
        case "generate":
            return step | {"draw": step["draw"] | few | {"temperature": 1.0}}
        case "difficulty":
            return step | {"draw": step["draw"] | few, "band": [0.0, 1.0], "max_tokens": None}
        case "augment":
            check = step["check"] | {"draw": step["check"]["draw"] | few}
            return step | {"max_new_tokens": NEW_TOKENS, "check": check, "originals": True}
        case _:
            return step
