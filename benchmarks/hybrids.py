"""`make hybrids`: the recipes of the named hybrids, and one table of what each ends with.

Needs a finished `make quickstart`, from which they start. What has been run before is not run again.
"""

from pathlib import Path

from scores import line, print_table
from smallwit import pipeline
from smallwit.recipe.file import check_recipe, read_recipe
from smallwit.recipe.schema import TrainStage

RECIPES = Path("recipes/hybrids")
BASELINE = (Path("runs/alone"), "sft-alone")


def main() -> None:
    """Run the recipes one after the other, each as `smallwit run` does, and print the table."""
    lines: list[str] = []
    families: list[str] = []
    for path in sorted(RECIPES.glob("*.yaml")):  # `alone`, which has the baseline, comes first
        recipe, places = read_recipe(path)
        check_recipe(recipe, path.parent, None, lines=places)
        run = Path("runs") / recipe.name
        results = pipeline.run(recipe, base=path.parent, run_dir=run, data_dir=None)
        families = list(recipe.tasks)
        starts = {stage.from_ for stage in recipe.stages if isinstance(stage, TrainStage)}
        ends = [model["name"] for model in results["models"] if model["name"] not in starts]
        lines += [line(f"`{path.stem}`: {end}", (run, end), results, than=BASELINE) for end in ends]
    print_table(families, "`sft-alone`", lines)


if __name__ == "__main__":
    main()
