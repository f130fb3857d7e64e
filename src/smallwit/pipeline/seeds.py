"""Expand the stages of a recipe over its seeds: what depends on the seed is repeated, all else is computed once.

The artifacts of the first seed bear the names of their stages; those of a further seed are called NAME@SEED.
"""

from collections.abc import Collection, Iterator, Sequence

from smallwit.recipe.schema import Recipe
from smallwit.recipe.stage import Stage


def over_seeds(recipe: Recipe, stages: Sequence[Stage]) -> Iterator[tuple[Stage, int | None]]:
    """Yield each stage with its seed, all of the first seed first; the seed is `None` where nothing depends on it.

    The `shared_stages` of the recipe have the first seed alone.

    `stages` are in the order of the plan: each comes after those that it reads.
    """
    repeated = _dependent(recipe, stages, recipe.shared_stages)
    # As in a run without shared stages: then the artifacts have the same keys.
    dependent = _dependent(recipe, stages, ())
    for seed in range(recipe.seed, recipe.seed + recipe.seeds):
        for stage, again, depends in zip(stages, repeated, dependent, strict=True):
            if again or seed == recipe.seed:
                yield stage, seed if depends else None


def seeded_name(name: str, seed: int | None, recipe: Recipe) -> str:
    """Return the name of a stage's artifact for a seed."""
    return name if seed in (None, recipe.seed) else f"{name}@{seed}"


def stage_name(name: str) -> str:
    """Return the name of the stage or model whose artifact has this name."""
    return name.partition("@")[0]


def seed_of(name: str, recipe: Recipe) -> int:
    """Return the seed of the artifact of this name."""
    seed = name.partition("@")[2]
    return int(seed) if seed else recipe.seed


def _dependent(recipe: Recipe, stages: Sequence[Stage], shared: Collection[str]) -> list[bool]:
    """Return for each stage whether it depends on the seed: by itself, or through a stage that it reads or matches.

    The `shared` stages do not.
    """
    found, seeded = [], set[str]()
    for stage in stages:
        depends = stage.depends_on_seed(recipe) or not seeded.isdisjoint([*stage.inputs(recipe), stage.compute_target])
        depends = depends and (stage.makes == "scores" or stage.name not in shared)
        found.append(depends)
        if depends and stage.makes != "scores":
            seeded.add(stage.name)
    return found
