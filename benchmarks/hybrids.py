"""`make hybrids`: the recipes of the named hybrids, and one table of what each ends with.

Needs a finished `make quickstart`, from which they start. What has been run before is not run again. `--seeds 3` takes
every recipe with three seeds; scores are means over them, and intervals are over problems.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from scores import Model, better, cells, pooled, print_table
from smallwit.pipeline import runs as pipeline
from smallwit.pipeline.preflight import check_recipe
from smallwit.recipe.file import read_recipe
from smallwit.recipe.schema import Recipe
from smallwit.stages.train import TrainStage

RECIPES = Path("recipes/hybrids")
BASELINE = "sft-alone"


def run_folder(recipe: Recipe, seed: int) -> Path:
    """Where the recipe runs with this seed."""
    return Path("runs") / (recipe.name if seed == 0 else f"{recipe.name}-seed{seed}")


def run(path: Path, seeds: Sequence[int]) -> Recipe:
    """Run a recipe with each of the seeds, as `smallwit run --set seed=N` does."""
    recipe, places = read_recipe(path)
    for seed in seeds:
        seeded = recipe.model_copy(update={"seed": seed})
        check_recipe(seeded, path.parent, None, lines=places)
        pipeline.run(seeded, base=path.parent, run_dir=run_folder(recipe, seed), data_dir=None)
    return recipe


def main() -> None:
    """Run the recipes one after the other, and print the table, the best first."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=1)
    seeds = range(parser.parse_args().seeds)
    lines: list[tuple[float, list[str]]] = []
    baseline: list[Model] = []
    families: list[str] = []
    for path in sorted(RECIPES.glob("*.yaml")):  # `alone`, which has the baseline, comes first
        recipe = run(path, seeds)
        families = list(recipe.tasks)
        stages = {stage.name: stage.from_ for stage in recipe.stages if isinstance(stage, TrainStage)}
        for end in (name for name in stages if name not in stages.values()):
            models = [(run_folder(recipe, seed), end) for seed in seeds]
            if end == BASELINE:
                baseline = models
            line = cells(f"`{path.stem}`: {end}", models, families)
            line.append(", ".join(f"{pooled(model):.1f}" for model in models))
            before = [(folder, stages[end]) for folder, _ in models] if stages[end] in stages else []
            line += [f"{pooled(*before):.1f}", better(models, before)] if before else ["", ""]
            line.append(better(models, baseline) if end != BASELINE else "")
            lines.append((pooled(*models), line))
    head = ["recipe", *families, "all", "each seed", "before", "last stage", f"over `{BASELINE}`"]
    print_table(head, [line for _, line in sorted(lines, reverse=True)])


if __name__ == "__main__":
    main()
