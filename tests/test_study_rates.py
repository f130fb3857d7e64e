"""Budgets of time: seconds and dollars become FLOPs once, by rates that the folder of a study keeps."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import pipeline_recipes as micro
from smallwit.report.study import budget_line
from smallwit.study import rates
from smallwit.study.expand import ExpandedStudy
from smallwit.study.rates import in_flops
from smallwit.study.results import study_results
from smallwit.study.run import open_study, plan_lines
from study_files import STUDY, made_run, read, write

TIMED = STUDY.replace("flops: 8.0e6", "seconds: 10")
RATES = {"sft.sft": 4e6, "sft-rl.sft": 4e6, "sft-rl.rl": 1e6, "sft-joint.answers": 2e6, "sft-joint.joint": 3e6}
Asked = list[list[str]]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """The stages of each measurement; every one of them has its rate of `RATES`."""
    calls: Asked = []

    def measured(expanded: ExpandedStudy, folder: Any, data_dir: Any, names: Sequence[str]) -> dict[str, float]:
        calls.append(list(names))
        return {name: RATES[name] for name in names}

    monkeypatch.setattr(rates, "measured_rates", measured)
    return calls


def flops(expanded: ExpandedStudy) -> dict[str, float | None]:
    return {stage.name: stage.declared_flops for stage in expanded.timed}


def test_each_stage_gets_the_flops_of_its_share_of_the_time(tmp_path: Path, asked: Asked) -> None:
    found = in_flops(read(tmp_path, TIMED), tmp_path / "run", None, keep=True)
    spent = {"sft.sft": 4e7, "sft-rl.sft": 2e7, "sft-rl.rl": 5e6, "sft-joint.answers": 5e6, "sft-joint.joint": 7.5e6}
    assert flops(found) == pytest.approx(spent)
    # What all pipelines begin with has its own budget.
    assert found.recipe.stage("base").declared_flops == 5e6  # type: ignore[union-attr]


def test_rates_are_measured_once_and_only_those_of_new_stages_later(tmp_path: Path, asked: Asked) -> None:
    two = TIMED.partition("  sft-joint")[0]
    first = in_flops(read(tmp_path, two), tmp_path / "run", None, keep=True)
    again = in_flops(read(tmp_path, TIMED), tmp_path / "run", None, keep=True)
    assert asked == [["sft.sft", "sft-rl.sft", "sft-rl.rl"], ["sft-joint.answers", "sft-joint.joint"]]
    assert flops(first).items() <= flops(again).items()


def test_another_budget_has_the_same_rates_and_other_settings_have_not(tmp_path: Path, asked: Asked) -> None:
    two = TIMED.partition("  sft-joint")[0]
    for text in (two, two.replace("seconds: 10", "seconds: 20"), two.replace("lr: 1.0e-4", "lr: 2.0e-4")):
        in_flops(read(tmp_path, text), tmp_path / "run", None, keep=True)
    assert asked[1:] == [["sft-rl.rl"]]


def test_a_dry_run_measures_and_leaves_the_folder_alone(tmp_path: Path, asked: Asked) -> None:
    opened = open_study(write(tmp_path, TIMED), (), tmp_path / "run", None, dry=True)
    assert len(asked) == 1
    assert not (tmp_path / "run").exists()
    assert next(plan_lines(opened)) == "sft: sft.sft 40.0 MFLOP in 10s"


def test_dollars_are_the_seconds_that_they_pay_for(tmp_path: Path, asked: Asked) -> None:
    text = TIMED.replace("seconds: 10", "dollars: 0.01") + "overrides: [prices.hour=3.6]\n"
    assert flops(in_flops(read(tmp_path, text), tmp_path / "run", None, keep=False)) == pytest.approx(
        flops(in_flops(read(tmp_path, TIMED), tmp_path / "run", None, keep=False))
    )


def test_the_page_says_how_far_the_time_was_off_and_what_was_paid(tmp_path: Path) -> None:
    expanded = read(tmp_path, TIMED.replace("seconds: 10", "dollars: 0.04") + "overrides: [prices.hour=3.6]\n")
    results = study_results(expanded, made_run(expanded, {"sft": 0.4, "sft-rl": 0.5, "sft-joint": 0.6}))
    # Of 40 seconds: the stages took 20.5; 30.5 and 40.5; 30.5, 50 and 60.5.
    assert [arm["time_over_budget"] for arm in results["arms"]] == pytest.approx([20.5 / 40, 71 / 40, 141 / 40])
    assert results["arms"][1]["cost"]["dollars"] == pytest.approx(0.071)
    assert "$0.04 of this machine" in budget_line(results)
    assert budget_line(results).endswith("took 51 to 352 % of that time, beside what else ran.")


@pytest.mark.slow
def test_a_machine_is_measured_with_every_kind_of_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = write(tmp_path, TIMED, micro.RECIPE)
    found = open_study(path, (), tmp_path / "run", None).expanded
    assert found.rates.keys() == flops(found).keys() == RATES.keys()
    assert all(1e6 < rate < 1e13 for rate in found.rates.values())
    kept = json.loads((tmp_path / "run/rates.json").read_text())["rates"].values()
    assert {each["flops_per_second"] for each in kept} == set(found.rates.values())
