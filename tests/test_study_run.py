"""A study's results, advice and files, and processes that do one study together."""

import csv
import io
import json
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from report_run import Page
from smallwit.console.numbers import human_seconds, percent
from smallwit.errors import UserError
from smallwit.pipeline.plan import Plan, make_plan
from smallwit.pipeline.run_folder import RunFolder
from smallwit.report.study import held_out_lines, method_lines
from smallwit.report.study_page import study_page
from smallwit.report.study_table import print_study
from smallwit.study.exports import study_tex, write_study
from smallwit.study.live import LiveTable
from smallwit.study.results import study_results
from smallwit.study.run import open_study, plan_lines, run_study
from study_files import STUDY, made_run, read, write

MEANS = {"sft": 0.4, "sft-rl": 0.42, "sft-joint": 0.9}
FILES = ["study.json", "study.csv", "study.tex", "study.html"]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder and the results of a study of three seeds whose `sft-joint` is far above the others."""
    folder = tmp_path_factory.mktemp("study")
    expanded = read(folder, STUDY, "seeds=3")
    results = study_results(expanded, made_run(expanded, MEANS, spread=0.02))
    write_study(folder, results)
    return folder, results


class TestResults:
    def test_scores_are_over_the_seeds_and_differences_to_the_baseline(
        self, found: tuple[Path, dict[str, Any]]
    ) -> None:
        arms = {arm["name"]: arm for arm in found[1]["arms"]}
        joint = arms["sft-joint"]
        assert len(joint["seeds"]) == 3
        assert joint["score"]["mean"] == pytest.approx(sum(joint["seeds"]) / 3)
        difference = joint["score"]["mean"] - arms["sft"]["score"]["mean"]
        assert joint["over_baseline"]["difference"] == pytest.approx(difference)
        assert arms["sft"]["over_baseline"] is None

    def test_a_cost_is_that_behind_the_start_and_the_mean_of_the_seeds(
        self, found: tuple[Path, dict[str, Any]]
    ) -> None:
        cost = {arm["name"]: arm["cost"] for arm in found[1]["arms"]}
        assert [each["flops"] for each in cost.values()] == pytest.approx([8e6] * 3)
        # The third and the fourth stage of the recipe: 30 and 40 seconds with the first seed, one more with each other.
        assert cost["sft-rl"]["seconds"] == pytest.approx(31 + 41)

    def test_the_tokens_that_a_teacher_of_this_machine_wrote_are_told(self, found: tuple[Path, dict[str, Any]]) -> None:
        assert [arm["cost"]["teacher_tokens"] for arm in found[1]["arms"]] == [0, 0, 100]

    def test_advice_names_the_best_what_is_told_apart_and_the_gain(self, found: tuple[Path, dict[str, Any]]) -> None:
        (advice,) = found[1]["advice"]
        assert (advice["best"], advice["tied"], advice["gain"]) == ("sft-joint", [], True)
        assert advice["text"][0].endswith("and is the best with probability 1.00.")
        assert advice["text"][-1] == "Every other pipeline is told apart from it: take sft-joint."

    def test_advice_about_equals_names_them_and_how_many_seeds_would_tell(self, tmp_path: Path) -> None:
        expanded = read(tmp_path, STUDY)
        run = made_run(expanded, {"sft": 0.5, "sft-rl": 0.55, "sft-joint": 0.5}, spread=0.04)
        (advice,) = study_results(expanded, run)["advice"]
        assert advice["tied"]
        assert not advice["gain"]
        assert any(line.startswith("Not told apart from it: ") for line in advice["text"])
        assert re.search(r"seeds would (not )?show the \d+\.\d points between", advice["text"][-1])

    def test_a_baseline_that_is_the_best_is_kept(self, tmp_path: Path) -> None:
        expanded = read(tmp_path, STUDY, "baseline=sft-joint")
        (advice,) = study_results(expanded, made_run(expanded, MEANS))["advice"]
        assert advice["text"][1] == "It is the baseline: no pipeline was measured to be better."
        assert not advice["gain"]

    @pytest.mark.parametrize(("mean", "take"), [(0.0, "easier problems, a stronger model"), (1.0, "harder problems")])
    def test_scores_that_are_all_equal_give_one_sentence_and_nothing_to_check(
        self, tmp_path: Path, mean: float, take: str
    ) -> None:
        expanded = read(tmp_path, STUDY, "seeds=3")
        results = study_results(expanded, made_run(expanded, dict.fromkeys(MEANS, mean)))
        (advice,) = results["advice"]
        (line,) = advice["text"]
        assert line.startswith(f"All pipelines score {percent(mean)} %, and nothing tells them apart: take {take}")
        assert (advice["best"], advice["tied"]) == ("sft", ["sft-rl", "sft-joint"])
        assert held_out_lines(results) == []
        assert "3 pipelines, the highest score" in study_page(results)

    def test_pipelines_that_share_the_highest_score_are_named_and_of_them_the_baseline_first(
        self, tmp_path: Path
    ) -> None:
        expanded = read(tmp_path, STUDY, "baseline=sft-joint")
        run = made_run(expanded, {"sft": 1.0, "sft-rl": 0.9, "sft-joint": 1.0})
        (advice,) = study_results(expanded, run)["advice"]
        assert advice["text"][0].startswith("sft-joint has the highest score, 100.0 %")
        assert advice["text"][1:3] == [
            "The same score: sft.",
            "It is the baseline: no pipeline was measured to be better.",
        ]

    def test_several_budgets_have_advice_and_a_baseline_each(self, tmp_path: Path) -> None:
        expanded = read(tmp_path, STUDY, "budget.flops=[4.0e6, 8.0e6]")
        results = study_results(expanded, made_run(expanded, MEANS))
        assert [advice["budget"] for advice in results["advice"]] == [4e6, 8e6]
        against = [arm["over_baseline"]["b"] for arm in results["arms"] if arm["over_baseline"]]
        assert against == ["sft-4.0M"] * 2 + ["sft-8.0M"] * 2
        assert results["front_axis"] == "flops"
        for amount in (4e6, 8e6):
            best = [arm["best"] for arm in results["arms"] if arm["budget"] == amount]
            assert sum(best) == pytest.approx(1.0)

    def test_a_study_without_a_common_problem_says_so(self, tmp_path: Path) -> None:
        expanded = read(tmp_path, STUDY)
        run = made_run(expanded, MEANS)
        for row in run.seeds["sft.sft"][1]["sums"]:
            row["score"] = None
        with pytest.raises(ValueError, match="no problem on which every pipeline has a verdict with every seed"):
            study_results(expanded, run)


class TestFiles:
    def test_the_table_fits_its_cells_and_has_advice_and_rules_below(self, found: tuple[Path, dict[str, Any]]) -> None:
        console = Console(file=io.StringIO(), width=60)
        print_study(found[1], found[0], console)
        printed = console.file.getvalue()  # type: ignore[attr-defined]
        joint = found[1]["arms"][2]
        row = next(line for line in printed.splitlines() if line.startswith("sft-joint ")).split()
        assert row[:2] == ["sft-joint", percent(joint["score"]["mean"])]
        assert " ".join(row).endswith(f"100 {human_seconds(joint['cost']['seconds'])}")
        flat = " ".join(printed.split())
        for line in [*found[1]["advice"][0]["text"], *found[1]["rules"], *method_lines(found[1])]:
            assert line in flat
        assert "Budget of a pipeline after base: 8.0 MFLOP of training; making rows" in flat

    def test_the_page_has_what_the_table_has_and_needs_no_network(self, found: tuple[Path, dict[str, Any]]) -> None:
        page = Page(found[0] / "study.html")
        for line in [*found[1]["advice"][0]["text"], *found[1]["rules"], *method_lines(found[1])]:
            assert line in page.text
        assert held_out_lines(found[1])[0] in page.text
        assert "default-src 'none'" in (found[0] / "study.html").read_text()

    def test_a_difference_whose_interval_holds_zero_has_a_grey_bar(self, found: tuple[Path, dict[str, Any]]) -> None:
        html = (found[0] / "study.html").read_text()
        assert html.count('class="bar unclear"') == 1
        assert html.count('class="bar"') == 1

    def test_the_exports_have_a_row_for_each_arm(self, found: tuple[Path, dict[str, Any]]) -> None:
        folder, results = found
        rows = list(csv.DictReader((folder / "study.csv").open()))
        assert {row["pipeline"]: float(row["seed_2"]) for row in rows} == {
            arm["name"]: arm["seeds"][2] for arm in results["arms"]
        }
        assert (folder / "study.tex").read_text().count(r" \\") == 1 + len(MEANS)
        assert json.loads((folder / "study.json").read_text()) == results

    def test_signs_that_latex_reads_are_escaped(self, tmp_path: Path) -> None:
        expanded = read(tmp_path, STUDY.replace("sft-rl", "sft_rl"))
        tex = study_tex(study_results(expanded, made_run(expanded, MEANS | {"sft_rl": 0.3})))
        assert r"sft\_rl &" in tex
        assert not re.search(r"(?<!\\)%", tex)

    def test_the_same_results_give_the_same_bytes(self, found: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
        write_study(tmp_path, found[1])
        assert [(tmp_path / name).read_bytes() for name in FILES] == [(found[0] / name).read_bytes() for name in FILES]


@pytest.mark.slow
def test_two_that_run_one_study_in_one_folder_share_the_work_and_both_end_with_its_files(tmp_path: Path) -> None:
    """In two threads: a lock of one is closed to the other as to another process, and no library is imported twice."""
    slow = "  slow:\n    - {stage: sft, optimizer: {lr: 1.0e-5}}\n"
    # Stages of half a second or more: of shorter ones the first could make all before the second looks again.
    path = write(tmp_path, (STUDY.partition("  sft-rl")[0] + slow).replace("flops: 8.0e6", "flops: 4.0e8"))
    opened = open_study(path, (), tmp_path / "run", None)
    consoles = [Console(file=io.StringIO(), width=200) for _ in range(2)]
    with ThreadPoolExecutor() as pool:
        first, second = pool.map(lambda console: run_study(opened, console=console), consoles)
    printed = [console.file.getvalue() for console in consoles]  # type: ignore[attr-defined]
    made = [done(each) for each in printed]
    assert all(made), "one of them did nothing"
    assert sorted([*made[0], *made[1]]) == sorted(json.loads((tmp_path / "run/plan.json").read_text())["nodes"])
    assert first == second
    assert all("by another process" in each and "study: " in each for each in printed)
    assert all((tmp_path / "run" / name).is_file() for name in (*FILES, "report.html", "results.json"))
    assert len(json.loads((tmp_path / "run/ledger.json").read_text())["attempts"]) == 2


def done(printed: str) -> list[str]:
    """The nodes that a run says it has computed."""
    lines = [line.partition("] ")[2] for line in printed.splitlines()]
    return [line.partition(": done in")[0] for line in lines if ": done in" in line]


def test_a_process_with_another_plan_is_refused_in_a_shared_folder(tmp_path: Path) -> None:
    plans = [plan_of(tmp_path, overrides) for overrides in (("seeds=2",), ("seeds=3",))]
    first, second = RunFolder(tmp_path / "run"), RunFolder(tmp_path / "run")
    with first.occupy(shared=True):
        first.write_plan(plans[0])
        first.share()
        with second.occupy(shared=True):
            second.write_plan(plans[0])
            with pytest.raises(UserError, match="its file or its code differs"):
                second.write_plan(plans[1])


def test_a_node_is_claimed_by_one_process_and_free_when_it_is_released_or_made(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, ())
    node = plan.nodes["sft.sft"]
    first, second = RunFolder(tmp_path / "run"), RunFolder(tmp_path / "run")
    with first.occupy(shared=True):
        first.share()
        with second.occupy(shared=True):
            assert first.claim(node)
            assert not second.claim(node)
            first.release(node)
            assert second.claim(node)
            second.release(node)
            first.artifact(node).mkdir()
            assert not first.claim(node)


def plan_of(folder: Path, overrides: Sequence[str]) -> Plan:
    expanded = read(folder, STUDY, *overrides)
    return make_plan(expanded.recipe, base=folder, data_dir=None, device="cpu", dtype="float32", threads=1)


def test_the_live_table_has_the_seeds_that_are_measured_and_their_mean_so_far(tmp_path: Path) -> None:
    expanded, plan, folder = read(tmp_path), plan_of(tmp_path, ()), RunFolder(tmp_path / "run")
    scheduler = SimpleNamespace(plan=plan, folder=folder, manifests={"sft.sft": {}, "evaluate sft.sft": {}})
    rows = folder.artifact(plan.nodes["evaluate sft.sft"]) / "sums.jsonl"
    rows.parent.mkdir(parents=True)
    rows.write_text('{"score": 1.0}\n{"score": 0.0}\n{"score": null}\n')
    console = Console(file=io.StringIO(), width=100)
    console.print(LiveTable(expanded)(scheduler))  # type: ignore[arg-type]
    cells = [line.split() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]
    assert ["sft", "1", "of", "2", "50.0", "—", "50.0"] in cells
    assert ["sft-rl", "0", "of", "4", "—", "—", "—"] in cells


def test_the_plan_says_what_each_pipeline_spends(tmp_path: Path) -> None:
    opened = open_study(write(tmp_path), (), None, None, dry=True)
    lines = list(plan_lines(opened))
    assert lines[2] == "sft-joint: sft-rl.sft 4.0 MFLOP, sft-joint.answers 2.0 MFLOP, sft-joint.joint 2.0 MFLOP"
    assert lines[3] == "2 stages once, 5 for 2 seeds"


def test_a_smoke_run_has_two_seeds_and_a_folder_of_its_own(tmp_path: Path) -> None:
    opened = open_study(write(tmp_path), ("seeds=5",), None, None, smoke=True, dry=True)
    assert (opened.expanded.recipe.seeds, opened.expanded.study.seeds) == (2, 2)
    assert opened.run_dir == Path("runs/tiny-smoke")
