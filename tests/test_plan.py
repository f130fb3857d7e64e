"""A plan tells memory, FLOPs and time before anything runs, by the stages' own code on tensors without storage."""

import json
from pathlib import Path

import pytest
import torch

import pipeline_recipes as micro
from pipeline_recipes import Ran
from smallwit.cli.plan import show_plan
from smallwit.cli.recipes import LoadedRecipe
from smallwit.errors import UserError
from smallwit.models.dry_tensors import LiveBytes, dry_tensors
from smallwit.objectives.batch import Example
from smallwit.objectives.kinds.cross_entropy import CrossEntropy
from smallwit.pipeline.forecast import Forecast, Planner, time_left, totals_of
from smallwit.pipeline.plan import Plan, plan_for
from smallwit.pipeline.rates import MeasuredRates, TableRates
from smallwit.pipeline.run_folder import RunFolder
from smallwit.recipe.file import load_recipe
from smallwit.recipe.schema import Recipe
from smallwit.stages.estimate import Work, no_signal_share
from smallwit.training.loop import Trainer
from smallwit.training.progress import TrainingBudget
from smallwit.training.settings import Optimizer
from smallwit.training.step_batch import StepBatch
from tiny import tiny_model

GB = 10**9


# ---- memory


class Rows:
    def batch(self, step: int) -> StepBatch:
        return StepBatch([Example(list(range(1, 9)), 3), Example(list(range(1, 6)), 2)])


def step_bytes(live: LiveBytes, qat: str | None) -> int:
    """The most bytes of two training steps, which are counted by `live`."""
    loss = CrossEntropy.make(source="rows").build(Rows(), 32)  # type: ignore[arg-type]
    trainer = Trainer(
        tiny_model(),
        {"rows": Rows()},
        [loss],
        teachers={},
        optimizer=Optimizer(),
        budget=TrainingBudget(steps=2),
        vocabulary=64,
        pad=0,
        micro_tokens=64,
        qat=qat,
        seed=0,
    )
    trainer.step()
    trainer.step()
    return live.peak


@pytest.mark.parametrize("qat", [None, "q4_0"])
def test_a_step_without_storage_counts_the_bytes_of_a_real_one(qat: str | None) -> None:
    with LiveBytes() as real:
        held = step_bytes(real, qat)
    with dry_tensors() as dry:
        assert step_bytes(dry, qat) == pytest.approx(held, rel=0.02)


def test_bytes_that_are_dropped_are_not_counted_any_more() -> None:
    with dry_tensors() as live:
        kept = torch.zeros(100)
        dropped = kept + 1
        assert (live.now, float(dropped.sum())) == (800, 1.0)
        del dropped
        assert (live.now, live.peak >= 800) == (400, True)
        torch.zeros(10**12)  # nothing is allocated


# ---- a recipe


def planner_of(recipe: Recipe, tmp_path: Path) -> Planner:
    planner = Planner(
        plan_for(recipe, tmp_path, None, "cpu", "float32"),
        RunFolder(tmp_path / "run"),
        tmp_path,
        None,
        "cpu",
        "float32",
    )
    with planner.estimated():
        pass
    return planner


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Planner:
    folder = tmp_path_factory.mktemp("planned")
    return planner_of(load_recipe(micro.write(folder)), folder)


@pytest.mark.slow
def test_every_stage_of_a_recipe_is_estimated(planned: Planner) -> None:
    assert planned.unknown == []
    assert set(planned.estimates) == set(planned.plan.nodes) - {"tokenizer"}
    steps = {name: found.steps for name, found in planned.estimates.items()}
    assert (steps["teacher"], steps["kd"], steps["joint"]) == (3, 2, 2)
    joint = planned.estimates["joint"].memory
    assert all(joint[part] > 0 for part in ("weights", "gradients", "optimizer", "activations", "teacher"))
    assert {work.kind for work in planned.estimates["joint"].work} == {"update", "forward", "decode"}


def test_weights_that_qat_keeps_aside_are_planned(tmp_path: Path) -> None:
    path = micro.write(tmp_path, micro.SHORT)
    planners = [planner_of(load_recipe(path, [f"stages.sft.qat={qat}"]), tmp_path) for qat in ("null", "q4_0")]
    plain, doubled = (planner.estimates["sft"].memory["weights"] for planner in planners)
    assert 1.9 * plain < doubled < 2 * plain


@pytest.mark.slow
def test_a_stage_of_equal_compute_has_the_flops_of_the_path_also_where_that_comes_later(tmp_path: Path) -> None:
    recipe = load_recipe(micro.write(tmp_path))
    path = {stage.name for stage in recipe.charged_stages("rl")}
    bound = [
        stage.model_copy(update={"steps": None, "epochs": None, "flops": 1e8}) if stage.name in path else stage
        for stage in recipe.stages
        if stage.name in path | {"teacher", "sft-equal-compute"}
    ]
    stages = sorted(bound, key=lambda stage: stage.name not in ("teacher", "base", "sft-equal-compute"))
    evaluation = recipe.evaluation.model_copy(update={"stages": []})
    planner = planner_of(recipe.model_copy(update={"stages": stages, "evaluation": evaluation}), tmp_path)
    flops = {name: found.flops for name, found in planner.estimates.items()}
    assert flops["sft-equal-compute"] == pytest.approx(sum(flops[name] for name in path - {"base"}), rel=0.3)
    assert list(planner.estimates) == [name for name in planner.plan.nodes if name in flops]


@pytest.mark.slow
def test_flops_are_those_that_the_run_then_counts(planned: Planner, finished: Ran) -> None:
    counted = {stage["name"]: stage["flops"] for stage in finished.ledger["stages"]}
    assert planned.estimates["teacher"].flops == pytest.approx(counted["teacher"], rel=1e-6)
    # Completions are taken to be as long as they can be, and groups without a signal to be trained on.
    assert counted["kd"] <= planned.estimates["kd"].flops < 1.6 * counted["kd"]
    assert counted["rl"] <= planned.estimates["rl"].flops


@pytest.mark.slow
def test_a_plan_is_printed_and_a_run_tells_its_totals(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = micro.write(tmp_path, micro.SHORT)
    recipe = load_recipe(path, ["prices.hour=2"])
    show_plan(LoadedRecipe(recipe, tmp_path, tmp_path / "run", None))
    told = capsys.readouterr().out
    for part in ("source demos reads sums 20 problems", "parameters", "cost", "it fits", "measured on this machine"):
        assert part in told
    ran = micro.run(path, tmp_path / "run")
    assert "plan: about" in ran.printed.splitlines()[0]
    assert set(ran.ledger["costs"]["nodes"]) == {"tokenizer", "sft", "evaluate sft"}


@pytest.mark.slow
def test_a_run_without_a_plan_says_how_to_get_one(finished: Ran) -> None:
    assert "`smallwit plan RECIPE`" in finished.printed


# ---- totals


def plan_of(tmp_path: Path) -> Plan:
    recipe = load_recipe(micro.write(tmp_path), ["evaluation.stages=[]"])
    return plan_for(recipe, tmp_path, None, "cpu", "float32")


def forecast(name: str, gigabytes: float, seconds: float) -> Forecast:
    return Forecast(name, 1, {"weights": gigabytes * GB}, {}, 1.0, seconds, 1)


def test_the_time_of_a_run_is_that_of_its_longest_path(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    # `base` and `sft` come after each other, `teacher` is beside them on the second worker.
    assert time_left(plan, {"teacher": 50.0, "base": 30.0, "sft": 40.0}, "cpu") == 70.0
    assert time_left(plan, {"teacher": 50.0, "sft": 40.0}, "cpu") == 50.0  # base is done


def test_the_memory_of_a_run_is_that_of_all_that_may_run_at_once(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    found = [forecast("teacher", 3, 1), forecast("base", 2, 1), forecast("sft", 4, 1)]
    assert totals_of(plan, found, "cpu").peak == 7 * GB  # the teacher and sft; base is over before sft


def test_the_largest_part_that_can_be_smaller_is_the_one_to_change() -> None:
    assert Forecast("sft", 1, {"weights": 9.0, "optimizer": 4.0, "logits": 1.0}, {}, 1, 1, 1).advice == "lora"


def test_groups_give_no_signal_where_all_are_right_or_all_are_wrong() -> None:
    assert no_signal_share(0.5, 2) == 0.5
    assert no_signal_share(0.1, 8) == pytest.approx(0.1**8 + 0.9**8)


# ---- rates


def test_rates_are_measured_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    measured: list[str] = []
    works = [Work("update", 1.0, {"rows": 2}, lambda: float(measured.append("update") or 5e9))] * 2
    rates = MeasuredRates("cpu")
    rates.measure(works, False, print)
    rates.keep({})
    again = MeasuredRates("cpu")
    again.measure(works, False, print)
    assert (measured, again.of(works[0])) == (["update"], 5e9)
    (file,) = (tmp_path / "smallwit" / "calibration").iterdir()
    assert json.loads(file.read_text())["machine"]["torch"] == torch.__version__
    again.measure(works, True, print)
    assert len(measured) == 2


@pytest.mark.parametrize("damage", ["", "[]", '{"rates": {}', '{"rates": 3, "forecasts": {}}', "\x00"])
def test_a_damaged_file_of_rates_counts_as_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    MeasuredRates("cpu").keep({})
    (file,) = (tmp_path / "smallwit" / "calibration").iterdir()
    file.write_text(damage)
    assert (MeasuredRates("cpu").known, MeasuredRates("cpu").forecasts) == ({}, {})


def test_an_unknown_device_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UserError, match=r"--device H10: is not in the table; .*H100"):
        TableRates("H10")
    assert TableRates("H100").of(Work("update", 1.0, {}, float)) == pytest.approx(0.136 * 989e12)
