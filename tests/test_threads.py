"""Without `workers`, a stage's threads follow from the machine's cores and the sizes of the models it works with."""

from pathlib import Path

import pytest

import pipeline_recipes as micro
from smallwit.pipeline.plan import make_plan
from smallwit.pipeline.threads import PARAMETERS_A_THREAD, fits, threads_by_model
from smallwit.recipe.file import read_recipe
from smallwit.recipe.schema import Recipe

# The shape of Qwen2.5-0.5B; its table counts with the tokenizer's rows.
HALF_A_BILLION = "{hidden: 896, layers: 24, heads: 14, kv_heads: 2, intermediate: 4864, max_length: 64}"


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    """The micro recipe without `workers`, and with models of every kind beside its own."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "config.json").write_text("{}")
    (tmp_path / "folder" / "model.safetensors").write_bytes(bytes(100))
    models = f"models:\n  half: {{new: {HALF_A_BILLION}}}\n  folder: {{folder: folder}}\n  hub: {{hub: a/b}}\n"
    served = "  served: {endpoint: 'http://127.0.0.1:9/v1', model: m, tokenizer: folder}\n"
    text = micro.RECIPE.replace("workers: 2\n", "").replace("models:\n", models + served)
    path = micro.write(tmp_path, text)
    return read_recipe(path)[0]


def test_a_small_model_has_one_thread_and_a_large_one_every_core(recipe: Recipe, tmp_path: Path) -> None:
    expected = {"half": 8, "folder": 1, "hub": 8, "served": 1, "large": 1, "small": 1}
    assert threads_by_model(recipe, tmp_path, cores=8) == expected


def test_between_them_a_thread_for_so_many_parameters(recipe: Recipe, tmp_path: Path) -> None:
    with (tmp_path / "folder" / "model.safetensors").open("wb") as file:
        file.truncate(3 * PARAMETERS_A_THREAD * 2)
    assert [threads_by_model(recipe, tmp_path, cores)["folder"] for cores in (1, 2, 8)] == [1, 2, 3]


def test_a_stage_has_the_threads_of_the_largest_model_it_works_with(recipe: Recipe, tmp_path: Path) -> None:
    threads = dict.fromkeys(recipe.models, 1) | {"large": 4}
    nodes = make_plan(recipe, base=tmp_path, data_dir=None, device="cpu", dtype="float32", threads=threads).nodes
    shown = ("tokenizer", "teacher", "sft", "kd", "evaluate teacher", "evaluate kd")
    assert [nodes[name].threads for name in shown] == [1, 4, 1, 4, 4, 1]


def test_a_stage_less_leaves_the_keys_of_the_others(recipe: Recipe, tmp_path: Path) -> None:
    threads = threads_by_model(recipe, tmp_path, cores=4)
    less = recipe.model_copy(update={"stages": recipe.stages[:3], "comparisons": []})
    whole, part = (
        make_plan(each, base=tmp_path, data_dir=None, device="cpu", dtype="float32", threads=threads).nodes
        for each in (recipe, less)
    )
    assert set(part) < set(whole)
    assert {name: node.key for name, node in part.items()} == {name: whole[name].key for name in part}


@pytest.mark.parametrize(
    ("threads", "taken", "expected"),
    [(8, [], True), (1, [1], True), (1, [1, 1], False), (2, [1], False), (1, [2], False)],
)
def test_stages_run_side_by_side_as_far_as_two_cores_go(threads: int, taken: list[int], expected: bool) -> None:
    assert fits(threads, taken, cores=2) is expected
