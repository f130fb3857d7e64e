"""The recipes of the named hybrids fit the quickstart that they start from, and each other."""

from pathlib import Path

import pytest

from recipe_samples import refusal
from smallwit.models.build import save_model
from smallwit.models.chat import ChatTokenizer
from smallwit.pipeline.plan import make_plan
from smallwit.pipeline.preflight import check_recipe
from smallwit.pipeline.run_folder import RunFolder
from smallwit.recipe.file import load_recipe
from smallwit.stages.train import TrainStage
from tiny import tiny_model, tokenizer

RECIPES = Path(__file__).parent.parent / "recipes"
HYBRIDS = sorted((RECIPES / "hybrids").glob("*.yaml"))
MODELS = ("teacher", "base")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A folder of recipes beside a run of the quickstart, as far as a recipe looks at one."""
    quickstart = load_recipe(RECIPES / "quickstart.yaml")
    plan = make_plan(quickstart, base=RECIPES, data_dir=None, device="cpu", dtype="float32", threads=1)
    folder = RunFolder(tmp_path / "runs" / quickstart.name)
    for name in MODELS:
        artifact = folder.work(plan.nodes[name], plan) / "artifact"
        save_model(tiny_model(rows=len(tokenizer())), ChatTokenizer(tokenizer()), artifact)
    return tmp_path / "recipes" / "hybrids"


@pytest.mark.parametrize("path", HYBRIDS, ids=lambda path: path.stem)
class TestEachHybrid:
    @pytest.mark.slow
    def test_starts_from_the_models_where_a_quickstart_leaves_them(self, path: Path, base: Path) -> None:
        recipe = load_recipe(path)
        check_recipe(recipe, base, None)
        assert set(recipe.models) == set(MODELS)

    def test_says_what_to_run_first_where_there_is_no_quickstart(self, path: Path, tmp_path: Path) -> None:
        said = refusal(lambda: check_recipe(load_recipe(path), tmp_path / "recipes" / "hybrids", None))
        assert f"{tmp_path}/runs/quickstart/stages/01-teacher/artifact is not there" in said
        assert "run the recipe that makes it first" in said

    def test_is_measured_on_the_families_of_the_quickstart_by_its_protocol(self, path: Path) -> None:
        recipe, quickstart = load_recipe(path), load_recipe(RECIPES / "quickstart.yaml")
        assert recipe.tasks == quickstart.tasks
        kept = {"problems", "max_new_tokens", "temperature", "split"}
        assert recipe.evaluation.model_dump(include=kept) == quickstart.evaluation.model_dump(include=kept)


def test_all_hybrids_may_spend_the_same_training_flops() -> None:
    spent = {}
    for path in HYBRIDS:
        recipe = load_recipe(path)
        trained = {stage.name: stage.from_ for stage in recipe.stages if isinstance(stage, TrainStage)}
        ends = trained.keys() - trained.values()
        spent |= {f"{path.stem}: {end}": recipe.declared_flops(end) for end in ends}
    assert len(spent) >= 6
    assert spent == pytest.approx(dict.fromkeys(spent, 1.0e12))
