"""A study that is really run: its table, its files, a kill in the middle, and two processes that share the work."""

import csv
import io
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from report_run import Page
from smallwit.report.study import held_out_lines, method_lines
from smallwit.study.run import open_study, plan_lines, run_study
from study_files import write

ARMS = ["sft", "sft-rl", "sft-joint"]
FILES = ["study.json", "study.csv", "study.tex", "study.html"]


def command(path: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "smallwit", "study", str(path), "--run-dir", str(path.parent / "run"), *more]


def done(printed: str) -> list[str]:
    """The nodes that a process says it has computed."""
    lines = [line.partition("] ")[2] for line in printed.splitlines()]
    return [line.partition(": done in")[0] for line in lines if ": done in" in line]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], str]:
    """A finished study: its folder, its results, what it printed."""
    path = write(tmp_path_factory.mktemp("study"))
    console = Console(file=io.StringIO(), width=200)
    opened = open_study(path, ("seeds=3",), path.parent / "run", None)
    results = run_study(opened, console=console)
    return path.parent / "run", results, console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.slow
class TestFinishedStudy:
    def test_every_arm_has_its_seeds_its_budget_and_its_place(self, ran: tuple[Path, dict[str, Any], str]) -> None:
        _, results, _ = ran
        assert [arm["name"] for arm in results["arms"]] == ARMS
        assert all(len(arm["seeds"]) == 3 for arm in results["arms"])
        # A stage ends with the step that spends the rest: here a step is dear.
        assert all(7.9e6 < arm["cost"]["flops"] < 1.3e7 for arm in results["arms"])
        assert sum(arm["best"] for arm in results["arms"]) == pytest.approx(1.0)
        assert len(results["pairs"]) == 3
        assert results["held_out"]["splits"] == 3

    def test_a_shared_prefix_is_computed_once_for_each_seed_and_the_start_once(
        self, ran: tuple[Path, dict[str, Any], str]
    ) -> None:
        folder, _, printed = ran
        made = done(printed)
        assert len(made) == len(set(made))
        assert [name for name in made if name.endswith(".sft")] == ["sft.sft", "sft-rl.sft"]
        assert {name.partition("@")[0] for name in made if "@" in name and "evaluate" not in name} == {
            "sft.sft",
            "sft-rl.sft",
            "sft-rl.rl",
            "sft-joint.joint",
        }
        assert (folder / "report.html").is_file()

    def test_the_teachers_tokens_are_told(self, ran: tuple[Path, dict[str, Any], str]) -> None:
        cost = {arm["name"]: arm["cost"]["teacher_tokens"] for arm in ran[1]["arms"]}
        assert cost["sft"] == cost["sft-rl"] == 0
        assert cost["sft-joint"] > 0

    def test_table_and_page_have_the_advice_the_rules_and_what_could_have_been_shown(
        self, ran: tuple[Path, dict[str, Any], str]
    ) -> None:
        folder, results, printed = ran
        page = Page(folder / "study.html").text
        flat = " ".join(printed.split())
        for line in [
            *results["advice"][0]["text"],
            *results["rules"],
            *method_lines(results),
            *held_out_lines(results),
        ]:
            assert " ".join(line.split()) in flat
            assert line in page
        assert (
            "Budget of a pipeline after base: 8.0 MFLOP of training; making rows and stored log-probs is counted."
            in flat
        )

    def test_the_exports_have_a_row_for_each_arm(self, ran: tuple[Path, dict[str, Any], str]) -> None:
        folder, results, _ = ran
        rows = list(csv.DictReader((folder / "study.csv").open()))
        assert sorted(row["pipeline"] for row in rows) == sorted(ARMS)
        assert {row["pipeline"]: float(row["seed_2"]) for row in rows} == {
            arm["name"]: arm["seeds"][2] for arm in results["arms"]
        }
        tex = (folder / "study.tex").read_text()
        assert tex.count(r" \\") == 1 + len(ARMS)
        assert json.loads((folder / "study.json").read_text()) == json.loads(json.dumps(results))

    def test_a_second_run_computes_nothing_and_writes_the_same(self, ran: tuple[Path, dict[str, Any], str]) -> None:
        folder, _, _ = ran
        before = [(folder / name).read_bytes() for name in FILES]
        console = Console(file=io.StringIO(), width=200)
        run_study(open_study(folder.parent / "study.yaml", ("seeds=3",), folder, None), console=console)
        assert done(console.file.getvalue()) == []  # type: ignore[attr-defined]
        assert [(folder / name).read_bytes() for name in FILES] == before


@pytest.mark.slow
def test_two_processes_share_a_study_and_one_that_is_killed_is_replaced(tmp_path: Path) -> None:
    """Each node is computed once in all, but for what the killed one was at; both of the others end with results."""
    path = write(tmp_path)
    victim = subprocess.Popen(command(path), stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "run" / "store").glob("[!.p]*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    others = [subprocess.Popen(command(path), stdout=subprocess.PIPE, text=True) for _ in range(2)]
    time.sleep(3)
    victim.send_signal(signal.SIGKILL)
    printed = [process.communicate(timeout=240)[0] for process in others]
    assert [process.returncode for process in others] == [0, 0]
    first = done(victim.communicate()[0])
    made = [name for each in printed for name in done(each)]
    assert len(made) == len(set(made)), "a node was computed twice"
    assert not set(first) & set(made)
    ledger = json.loads((tmp_path / "run" / "ledger.json").read_text())
    assert len(ledger["attempts"]) >= 2
    assert all("study: " in each for each in printed)


def test_the_plan_says_what_each_pipeline_spends(tmp_path: Path) -> None:
    opened = open_study(write(tmp_path), (), None, None, read_data=False)
    lines = list(plan_lines(opened))
    assert lines[2] == "sft-joint: sft-rl.sft 4.0 MFLOP, sft-joint.answers 2.0 MFLOP, sft-joint.joint 2.0 MFLOP"
    assert lines[3] == "2 stages once, 5 for 2 seeds"


def test_a_smoke_run_has_two_seeds_and_a_folder_of_its_own(tmp_path: Path) -> None:
    opened = open_study(write(tmp_path), ("seeds=5",), None, None, smoke=True, read_data=False)
    assert (opened.expanded.recipe.seeds, opened.expanded.study.seeds) == (2, 2)
    assert opened.run_dir == Path("runs/tiny-smoke")
