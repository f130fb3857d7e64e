"""A study's file: how pipelines become one recipe, what they may spend, and what is refused with its line."""

from pathlib import Path
from typing import Any

import pytest

import pipeline_recipes as micro
from recipe_samples import refusal
from smallwit.pipeline.plan import make_plan
from smallwit.pipeline.preflight import check_recipe
from smallwit.recipe.file import load_recipe
from smallwit.study.expand import ExpandedStudy, read_study
from study_files import STUDY, read, write

STUDIES = sorted((Path(__file__).parents[1] / "studies").glob("*.yaml"))


def stage(expanded: ExpandedStudy, name: str) -> Any:
    found = expanded.recipe.stage(name)
    assert found is not None, [each.name for each in expanded.recipe.stages]
    return found


def spent(expanded: ExpandedStudy, place: int) -> float:
    """The FLOPs that an arm declares after the common start."""
    return sum(each.declared_flops or 0 for each in expanded.own_stages(expanded.arms[place]))


class TestExpansion:
    def test_stages_of_the_base_recipe_that_nothing_reads_are_left_out(self, tmp_path: Path) -> None:
        expanded = read(tmp_path, STUDY.partition("  sft-joint")[0])
        assert [each.name for each in expanded.recipe.stages] == ["base", "sft.sft", "sft-rl.sft", "sft-rl.rl"]
        assert expanded.recipe.shared_stages == ["base"]

    def test_stages_up_to_the_start_are_made_once_and_a_prefix_that_pipelines_share_is_one_stage(
        self, tmp_path: Path
    ) -> None:
        expanded = read(tmp_path)
        assert [each.name for each in expanded.recipe.stages] == [
            "teacher",
            "base",
            "sft.sft",
            "sft-rl.sft",
            "sft-rl.rl",
            "sft-joint.answers",
            "sft-joint.joint",
        ]
        assert expanded.recipe.shared_stages == ["teacher", "base"]
        assert stage(expanded, "sft-joint.joint").from_ == "sft-rl.sft"

    def test_only_what_comes_after_the_start_is_made_for_each_seed(self, tmp_path: Path) -> None:
        expanded = read(tmp_path)
        plan = make_plan(expanded.recipe, base=tmp_path, data_dir=None, device="cpu", dtype="float32", threads=1)
        again = [name for name in plan.nodes if name.endswith("@1") and not name.startswith("evaluate")]
        assert again == ["sft.sft@1", "sft-rl.sft@1", "sft-rl.rl@1", "sft-joint.joint@1"]
        assert plan.nodes["sft.sft@1"].needs == ("base",)
        assert "evaluate base@1" not in plan.nodes

    def test_an_entry_starts_from_the_one_before_it_and_reads_the_rows_of_its_own_pipeline(
        self, tmp_path: Path
    ) -> None:
        expanded = read(tmp_path)
        assert stage(expanded, "sft.sft").from_ == "base"
        assert stage(expanded, "sft-rl.rl").from_ == "sft-rl.sft"
        assert stage(expanded, "sft-joint.joint").sources["taught"].from_ == "sft-joint.answers"
        assert stage(expanded, "sft-joint.answers").model == "teacher"

    def test_an_entry_keeps_the_settings_of_its_stage_but_for_those_that_differ(self, tmp_path: Path) -> None:
        expanded = read(tmp_path)
        rl, joint = stage(expanded, "sft-rl.rl"), stage(expanded, "sft-joint.joint")
        assert (rl.optimizer.lr, rl.sources["own"].group, rl.steps) == (1e-4, 4, None)
        assert (joint.sources["own"].group, joint.sources["own"].max_new_tokens) == (2, 8)
        assert [each.kind for each in joint.objectives] == ["cross_entropy", "forward_kl", "grpo"]

    def test_every_pipeline_may_spend_the_budget_and_the_teachers_answers_are_a_part_of_it(
        self, tmp_path: Path
    ) -> None:
        expanded = read(tmp_path)
        assert [spent(expanded, place) for place in range(3)] == pytest.approx([8e6] * 3)
        assert stage(expanded, "sft-joint.answers").flops == pytest.approx(2e6)

    def test_free_answers_leave_the_whole_budget_to_training(self, tmp_path: Path) -> None:
        text = STUDY.replace("8.0e6}", "8.0e6, answers: free}").replace("answers, share: 0.25", "answers")
        expanded = read(tmp_path, text)
        assert stage(expanded, "sft-joint.joint").flops == pytest.approx(4e6)
        assert stage(expanded, "sft-joint.answers").flops is None

    def test_several_budgets_are_arms_of_their_own(self, tmp_path: Path) -> None:
        expanded = read(tmp_path, STUDY, "budget.flops=[4.0e6, 8.0e6]")
        assert [arm.name for arm in expanded.arms[::3]] == ["sft-4.0M", "sft-8.0M"]
        assert [spent(expanded, place) for place in (0, 3)] == [4e6, 8e6]

    def test_budgets_of_a_schedule_that_ends_in_a_decay_share_the_run_before_it(self, tmp_path: Path) -> None:
        text = STUDY.replace("{stage: sft}", "{stage: sft, optimizer: {schedule: wsd, warmup: 0.1, decay: 0.25}}")
        expanded = read(tmp_path, text.partition("  sft-joint")[0], "budget.flops=[4.0e6, 8.0e6]")
        trunk, longer = stage(expanded, "sft-4.0M.sft-trunk"), stage(expanded, "sft-8.0M.sft-trunk")
        decays = [stage(expanded, "sft-4.0M.sft"), stage(expanded, "sft-8.0M.sft")]
        assert [each.flops for each in (trunk, longer, *decays)] == [3e6, 3e6, 1e6, 2e6]
        assert [each.continues for each in (trunk, longer, *decays)] == [None, trunk.name, trunk.name, longer.name]
        assert [each.optimizer.schedule for each in (trunk, longer, *decays)] == ["constant"] * 2 + ["wsd"] * 2
        assert trunk.optimizer.warmup == pytest.approx(0.1 * 4e6 / 3e6)
        assert [spent(expanded, place) for place in (0, 2)] == [4e6, 8e6]
        # The others end with a decay to zero over the whole of their budget.
        assert [each.continues for each in expanded.recipe.stages if each.name.endswith(".rl")] == [None, None]  # type: ignore[attr-defined]
        check_recipe(expanded.recipe, tmp_path, None, lines=expanded.lines, read_data=False)

    def test_a_budget_of_teacher_tokens_bounds_the_answers_and_leaves_training_to_the_entries(
        self, tmp_path: Path
    ) -> None:
        text = STUDY.replace("flops: 8.0e6", "teacher_tokens: 1000").replace("joint\n", "joint\n      steps: 3\n")
        text = text.replace("sft}", "sft, steps: 3}").replace("sft, share: 0.5", "sft, steps: 2")
        text = text.replace("stage: rl,", "stage: rl, steps: 2,").replace("answers, share: 0.25", "answers")
        text = text.replace(
            "    - stage: joint",
            "    - stage: joint\n      objectives: [{kind: cross_entropy, source: taught}, {kind: grpo, source: own}]",
        )
        expanded = read(tmp_path, text)
        assert (stage(expanded, "sft-joint.answers").tokens, stage(expanded, "sft-joint.joint").steps) == (1000, 3)

    def test_every_pipeline_is_compared_with_the_baseline_and_the_start_is_measured_too(self, tmp_path: Path) -> None:
        recipe = read(tmp_path).recipe
        assert recipe.evaluation.stages == ["base", "sft.sft", "sft-rl.rl", "sft-joint.joint"]
        assert [(each.a, each.b) for each in recipe.comparisons] == [
            ("sft-rl.rl", "sft.sft"),
            ("sft-joint.joint", "sft.sft"),
        ]

    def test_rows_of_the_base_recipe_that_are_free_are_made_once_under_the_keys_of_its_own_run(
        self, tmp_path: Path
    ) -> None:
        text = STUDY.replace("8.0e6}", "8.0e6, answers: free}").replace("    - {stage: answers, share: 0.25}\n", "")
        expanded = read(tmp_path, text, "seed=3")
        assert expanded.recipe.shared_stages == ["teacher", "base", "answers"]
        assert stage(expanded, "sft-joint.joint").sources["taught"].from_ == "answers"
        plans = [
            make_plan(recipe, base=tmp_path, data_dir=None, device="cpu", dtype="float32", threads=1)
            for recipe in (expanded.recipe, load_recipe(tmp_path / "micro.yaml"))
        ]
        for name in ("tokenizer", "teacher", "base", "answers", "evaluate base"):
            assert plans[0].nodes[name].key == plans[1].nodes[name].key

    def test_overrides_change_the_base_recipe_and_set_changes_the_study(self, tmp_path: Path) -> None:
        expanded = read(tmp_path, STUDY + "overrides: [evaluation.problems=3]\n", "seeds=4")
        assert (expanded.recipe.evaluation.problems, expanded.recipe.seeds) == (3, 4)


REFUSED = {
    "8.0e6}": (
        "8.0e6, dollars: 3}",
        "4: budget: give exactly one of flops, seconds, dollars, teacher_tokens; got flops, d",
    ),
    "flops: 8.0e6": ("dollars: 3", "4: dollars need prices.hour above 0 in the base recipe"),
    "baseline: sft": ("baseline: stf", "6: baseline 'stf' is no pipeline; did you mean 'sft'?"),
    "after: base": ("after: bsae", "3: after 'bsae' is no model and no train stage of the base recipe; did you mean"),
    "share: 0.25": ("share: 25", "15: pipeline 'sft-joint': share must be a number above 0, at most 1; got 25"),
    "stage: rl, optimizer": ("stage: rl, flops: much, optimizer", "12: pipeline 'sft-rl': flops must be a number; got"),
    "answers, share: 0.25": ("answers", "16: pipeline 'sft-joint': has no share, as an entry before"),
    "sft, share: 0.5": ("sft, share: 1.0", "pipeline 'sft-rl': its entries take 100 % of the budget, too much; change"),
    "    - {stage: rl,": ("    - {stage: rls,", "12: pipeline 'sft-rl': stage 'rls' is none of the base recipe; did"),
    "lr: 1.0e-4": ("rate: 1.0e-4", "12: unknown key 'rate' in stages[10].optimizer"),
    "stage: rl, ": (
        "stage: rl, steps: 4, ",
        "12: pipeline 'sft-rl': the budget is in flops; give share in place of steps",
    ),
    "stage: joint\n      sources: {own: {group: 2, prompts: 3}}": (
        "stage: rl",
        "15: 'sft-joint.answers' is read by no entry after it; leave it out",
    ),
    "seeds: 2": ("seeds: 1", "5: seeds must be greater than or equal to 2"),
    "  sft:\n    - {stage: sft}\n": ("  sft:\n    - {share: 1}\n", "9: pipeline 'sft': needs stage (one of the base"),
    "    - {stage: rl, optimizer: {lr: 1.0e-4}}\n": (
        "    - {stage: sft, share: 0.5}\n",
        "12: pipeline 'sft-rl': 'sft' is there twice",
    ),
    "    - {stage: sft, share: 0.5}\n    - {stage: rl, optimizer: {lr: 1.0e-4}}\n": (
        "    - {stage: sft}\n",
        "10: pipelines 'sft' and 'sft-rl' are the same",
    ),
}


def test_flops_of_an_entry_are_refused_where_the_budget_is_time(tmp_path: Path) -> None:
    text = STUDY.replace("flops: 8.0e6", "seconds: 60").replace("sft, share: 0.5", "sft, flops: 1.0e6")
    assert "pipeline 'sft-rl': the budget is in seconds; give share in place of flops" in refusal(
        lambda: read(tmp_path, text)
    )


@pytest.mark.parametrize("given", REFUSED)
def test_what_cannot_be_is_refused_with_its_line(given: str, tmp_path: Path) -> None:
    spoiled, message = REFUSED[given]
    assert given in STUDY
    assert message in refusal(lambda: read(tmp_path, STUDY.replace(given, spoiled)))


def test_a_live_teacher_is_refused_where_its_tokens_are_the_budget(tmp_path: Path) -> None:
    text = STUDY.replace("flops: 8.0e6", "teacher_tokens: 100").replace("share: 0.5", "steps: 1")
    text = text.replace("sft}", "sft, steps: 3}").replace("stage: rl,", "stage: rl, steps: 2,")
    text = text.replace("joint\n", "joint\n      steps: 3\n").replace("answers, share: 0.25", "answers")
    assert "reads teacher 'teacher' as it trains, and nothing bounds these tokens" in refusal(
        lambda: read(tmp_path, text)
    )


def test_stored_log_probs_have_no_bound_in_flops_and_are_refused_where_they_count(tmp_path: Path) -> None:
    store = "    - {name: stored, kind: teacher_logprobs, model: teacher, limit: 4}\n    - stage: joint\n"
    text = STUDY.replace("    - stage: joint\n", store)
    said = refusal(lambda: read(tmp_path, text))
    assert "16: pipeline 'sft-joint': what a stage of kind teacher_logprobs spends counts" in said
    assert "give budget.answers: free" in said


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_the_studies_are_whole_and_every_arm_declares_its_budget(path: Path) -> None:
    expanded = read_study(path)
    check_recipe(expanded.recipe, expanded.base, None, lines=expanded.lines, read_data=False)
    assert expanded.arms
    if expanded.study.budget.answers == "counted":
        budgets = [arm.budget for arm in expanded.arms]
        assert [spent(expanded, place) for place in range(len(budgets))] == pytest.approx(budgets)


def test_rows_of_the_base_recipe_count_too(tmp_path: Path) -> None:
    """`answers` comes before `base` there, so that it is no entry of the pipeline that reads it."""
    answers = "  - {name: answers, kind: rejection_sampling, model: teacher, problems: 6, flops: 1.0e6}\n"
    given = micro.RECIPE.replace("name: answers\n", "name: more\n").replace(
        "  - name: base", f"{answers}  - name: base"
    )
    path = write(tmp_path, STUDY.replace("    - {stage: answers, share: 0.25}\n", ""), given)
    assert "counts answers, sft-rl.sft, sft-joint.joint, which do not spend" in refusal(lambda: read_study(path))
