"""A recipe with several seeds: what is made for each of them, what is made once, and its figures."""

from pathlib import Path

import pytest

import pipeline_recipes as micro
from pipeline_recipes import RECIPE, SHORT
from smallwit.errors import UserError
from smallwit.pipeline.plan import Plan, make_plan
from smallwit.recipe.file import load_recipe

SOLUTIONS = """\
  - {name: stored, kind: teacher_logprobs, model: folder, limit: 4}
  - {name: greedy, kind: rejection_sampling, model: folder, problems: 4}
  - {name: drawn, kind: rejection_sampling, model: folder, problems: 4, temperature: 1.0}
"""


def plan_of(folder: Path, text: str, *overrides: str) -> Plan:
    recipe = load_recipe(micro.write(folder, text), overrides)
    return make_plan(recipe, base=folder, data_dir=None, device="cpu", dtype="float32", threads=1)


def keys(plan: Plan) -> dict[str, str]:
    return {name: node.key for name, node in plan.nodes.items()}


@pytest.fixture
def ready(tmp_path: Path) -> str:
    """A recipe with a model that is already there, and stages that only ask it."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    return SHORT.replace("models:\n", "models:\n  folder: {folder: model}\n") + SOLUTIONS


class TestPlan:
    def test_one_seed_leaves_the_names_as_they_are(self, tmp_path: Path) -> None:
        plan = plan_of(tmp_path, SHORT)
        assert list(plan.nodes) == ["tokenizer", "sft", "evaluate sft"]

    def test_what_trains_is_made_for_each_seed_and_the_tokenizer_once(self, tmp_path: Path) -> None:
        plan = plan_of(tmp_path, SHORT, "seeds=3")
        assert [name for name in plan.nodes if not name.startswith("evaluate")] == [
            "tokenizer",
            "sft",
            "sft@4",
            "sft@5",
        ]
        assert plan.nodes["evaluate sft@5"].needs == ("sft@5",)
        assert plan.nodes["sft@5"].seed == 5

    def test_each_seed_reads_the_stages_of_its_own_seed(self, tmp_path: Path) -> None:
        nodes = plan_of(tmp_path, RECIPE, "seeds=2").nodes
        assert nodes["joint@4"].needs == ("sft@4", "teacher@4", "answers@4")
        assert nodes["sft-equal-compute@4"].needs == ("base@4", "rl@4")

    def test_a_stage_that_draws_nothing_on_fixed_weights_is_computed_once(self, tmp_path: Path, ready: str) -> None:
        nodes = plan_of(tmp_path, ready, "seeds=2", "evaluation.stages=[folder, sft]").nodes
        repeated = {name.removesuffix("@4") for name in nodes if name.endswith("@4")}
        assert repeated == {"sft", "drawn", "evaluate sft"}

    def test_sampled_responses_are_drawn_for_each_seed(self, tmp_path: Path, ready: str) -> None:
        nodes = plan_of(tmp_path, ready, "seeds=2", "evaluation={stages: [folder], temperature: 1.0}").nodes
        assert "evaluate folder@4" in nodes

    def test_more_seeds_keep_the_artifacts_of_those_that_are_there(self, tmp_path: Path) -> None:
        three, five = (keys(plan_of(tmp_path, RECIPE, f"seeds={count}")) for count in (3, 5))
        assert three.items() < five.items()

    def test_a_further_seed_has_the_artifacts_of_a_run_of_that_seed(self, tmp_path: Path) -> None:
        several, alone = keys(plan_of(tmp_path, RECIPE, "seeds=2")), keys(plan_of(tmp_path, RECIPE, "seed=4"))
        assert {several[f"{name}@4"] for name in alone if name != "tokenizer"} | {several["tokenizer"]} == set(
            alone.values()
        )

    def test_another_seed_changes_no_key_of_what_does_not_depend_on_it(self, tmp_path: Path, ready: str) -> None:
        first, other = (keys(plan_of(tmp_path, ready, f"seed={seed}")) for seed in (3, 4))
        same = {name for name in first if first[name] == other[name]}
        assert same == {"tokenizer", "stored", "greedy"}

    def test_seeds_of_a_recipe_that_draws_nothing_are_refused(self, tmp_path: Path) -> None:
        rows = "name: rows\nstages:\n- name: data\n  kind: dataset\n  steps:\n  - {kind: gather, sources: [%s]}\n%s"
        text = rows % ("{kind: file, path: rows.jsonl, origin: own, license: mit}", "  - {kind: write}\nseeds: 2\n")
        (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
        with pytest.raises(UserError, match=r"micro.yaml:8: seeds is 2, and nothing .* depends on the seed; leave it"):
            micro.read(micro.write(tmp_path, text))
