"""A recipe with several seeds: what is made for each of them, what is made once, and its figures."""

import io
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import pipeline_recipes as micro
from pipeline_recipes import RECIPE, SHORT
from report_run import TASKS, Page, change, make_run, metric_rows, read, sample, write_lines
from smallwit.errors import UserError
from smallwit.evaluation.comparison import compare_tasks
from smallwit.evaluation.seed_table import SeedTable
from smallwit.pipeline.plan import Plan, make_plan
from smallwit.pipeline.results import summarise
from smallwit.recipe.file import load_recipe
from smallwit.report.html import write_report
from smallwit.report.load import load_run
from smallwit.report.table import print_summary

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


def rows_of(solved: Sequence[int], n: int = 40, unknown: int | None = None) -> list[dict[str, Any]]:
    """The samples of a model that solves these problems; the grader failed on the problem `unknown`."""
    scores = [None if id == unknown else float(id in solved) for id in range(n)]
    return [
        {"id": str(id), "sample": 0, "score": score, "strict": score, "gold": "1", "answer": "1", "tokens": 1}
        | {"reason": "correct" if score else "wrong"}
        for id, score in enumerate(scores)
    ]


def evaluated(folder: Path, solved: dict[str, Sequence[int]], tasks: Sequence[str] = ("sums",)) -> dict[str, Any]:
    """The results of a run of SHORT whose models (by the names of their artifacts) solve these problems."""
    for name, right in solved.items():
        for task in tasks:
            write_lines(folder / name / f"{task}.jsonl", rows_of(right))
    costs = {
        name: {"parameters": 1, "training_flops": 2.0 + number, "seconds": 3.0} for number, name in enumerate(solved)
    }
    recipe = load_recipe(
        micro.write(folder, SHORT), [f"seeds={max(1, sum('sft' in name for name in solved))}", *COMPARED]
    )
    return summarise(recipe, folder, costs, {name: dict.fromkeys(tasks, "s") for name in solved}, {})


COMPARED = ["comparisons=[{a: sft, b: small}]", "evaluation.stages=[small, sft]"]


class TestResults:
    def test_a_score_is_the_mean_of_the_seeds_which_are_listed(self, tmp_path: Path) -> None:
        results = evaluated(tmp_path, {"small": [], "sft": range(20), "sft@4": range(10), "sft@5": range(4, 20)})
        small, sft = results["models"]
        assert results["seeds"] == [3, 4, 5]
        assert [(each["seed"], each["scores"]["sums"]["mean"]) for each in sft["seeds"]] == [
            (3, 0.5),
            (4, 0.25),
            (5, 0.4),
        ]
        assert sft["scores"]["sums"]["mean"] == pytest.approx(1.15 / 3)
        assert sft["scores"]["sums"]["low"] < 0.25 < 0.5 < sft["scores"]["sums"]["high"]
        assert (sft["training_flops"], sft["seeds"][2]["training_flops"]) == (4.0, 5.0)
        assert "seeds" not in small

    def test_a_comparison_is_over_the_seeds_too(self, tmp_path: Path) -> None:
        (tmp_path / "one").mkdir()
        several = evaluated(tmp_path, {"small": [], "sft": range(20), "sft@4": range(2), "sft@5": range(8)})
        one = evaluated(tmp_path / "one", {"small": [], "sft": range(10)})
        (wide,), (narrow,) = several["comparisons"], one["comparisons"]
        assert wide["difference"] == narrow["difference"] == 0.25
        assert wide["low"] < 0 < narrow["low"]
        assert narrow["p"] < 0.05 < wide["p"]

    def test_models_without_seeds_are_compared_as_ever(self, tmp_path: Path) -> None:
        rows = {name: [{"sums": rows_of(range(right))}] for name, right in (("a", 20), ("b", 5))}
        ((entry, p),) = SeedTable(rows).compare("a", "b")
        (single,), _ = compare_tasks(rows["a"][0], rows["b"][0])
        assert (entry["low"], entry["high"], p) == (single.paired.low, single.paired.high, single.paired.p)

    def test_several_tasks_are_pooled_and_corrected(self) -> None:
        runs = [{"sums": rows_of(range(right)), "more": rows_of(range(right + 2))} for right in (20, 21, 20)]
        rows = {"a": runs, "b": [{task: rows_of(range(15)) for task in ("sums", "more")}]}
        compared = SeedTable(rows).compare("a", "b")
        assert [entry["task"] for entry, _ in compared] == ["sums", "more", "pooled"]
        assert compared[0][1] >= compared[0][0]["p"]
        assert compared[2][1] == compared[2][0]["p"]

    def test_a_problem_that_one_seed_has_no_verdict_on_is_left_out_and_bounds_are_given(self) -> None:
        runs = [{"sums": rows_of(range(20), unknown=unknown)} for unknown in (None, 3, None)]
        table = SeedTable({"a": runs})
        score = table.score("a", "sums")
        assert (score["n"], score["unverified"]) == (39, 1)
        assert score["mean"] == pytest.approx(19 / 39)
        assert score["bounds"] == pytest.approx([(20 + 19 + 20) / 120, 0.5])
        assert [each["mean"] for each in table.means("a", "sums")] == [score["mean"]] * 3
        assert table.score("a", "sums")["strict"] == score["mean"]


class TestReport:
    @pytest.fixture
    def run(self, tmp_path: Path) -> Path:
        """A run with two further seeds of one of its models."""
        run = make_run(tmp_path, models=("teacher", "sft"))
        for number, seed in enumerate((1, 2)):
            for task in TASKS:
                rows = [sample("sft", task, i, random.Random(f"{number} {i}")) for i in range(40)]
                write_lines(run / "evaluation" / f"sft@{seed}" / f"{task}.jsonl", rows)
            write_lines(
                run / "stages" / f"0{seed + 4}-sft@{seed}" / "metrics.jsonl", metric_rows("sft", 60, random.Random(0))
            )

        def seeded(results: dict[str, Any]) -> None:
            results["seeds"] = [0, 1, 2]
            results["models"][1]["seeds"] = []

        change(run, "results.json", seeded)
        return run

    def test_the_table_says_what_its_intervals_are_over(self, run: Path) -> None:
        console = Console(file=io.StringIO(), width=200)
        print_summary(read(run), run / "report.html", console)
        shown = console.file.getvalue()  # type: ignore[attr-defined]
        assert "3 seeds; intervals over seeds and problems (Student's t, pooled seed spread)" in shown
        assert "of problems alone for teacher" in shown
        assert "seeds 0 to 2" in shown

    def test_the_page_shows_curves_and_samples_of_the_first_seed_and_says_so(self, run: Path) -> None:
        page = Page(write_report(run))
        assert "3 seeds; intervals over seeds and problems" in page.text
        assert "Samples of the first seed, 0" in page.text
        assert sorted(page.samples["models"]) == ["sft", "teacher"]
        assert [metrics.name for metrics in load_run(run).metrics] == ["teacher", "sft"]

    def test_the_share_of_the_teacher_is_that_of_all_seeds(self, run: Path) -> None:
        rows = load_run(run).seeds
        assert len(rows["sft"]) == 3
        ratio = SeedTable(rows).ratio("sft", "teacher", "algebra")
        assert ratio is not None
        assert f"{ratio.mean:.1f} % {ratio.low:.1f} to {ratio.high:.1f}" in Page(write_report(run)).text


@pytest.mark.slow
def test_the_example_with_seeds_runs_and_more_seeds_compute_only_what_is_new(tmp_path: Path) -> None:
    recipe = Path(__file__).parents[1] / "examples" / "seeds.yaml"
    few = [f"stages.{name}.steps=2" for name in ("sft", "sft-more")] + [
        "evaluation.problems=4",
        "evaluation.max_new_tokens=4",
    ]
    ran = micro.run(recipe, tmp_path / "run", *few, "seeds=2")
    assert [entry["name"] for entry in ran.ledger["stages"]] == ["sft", "sft-more", "sft@1", "sft-more@1"]
    assert ran.weights("sft") != ran.weights("sft@1")
    assert [len(model["seeds"]) for model in ran.results["models"]] == [2, 2]
    costs = {entry["name"]: entry for entry in ran.ledger["stages"]}
    path = costs["sft@1"]["flops"] + costs["sft-more@1"]["flops"]
    assert costs["sft-more@1"]["cumulative_flops"] == pytest.approx(path)
    more = micro.run(recipe, tmp_path / "run", *few, "seeds=3")
    assert more.computed
    assert all(name.endswith("@2") for name in more.computed)
    one = micro.run(recipe, tmp_path / "run", *few, "seeds=1")
    assert one.computed == []
    assert sorted(path.name for path in (tmp_path / "run" / "evaluation").iterdir()) == ["sft", "sft-more"]
