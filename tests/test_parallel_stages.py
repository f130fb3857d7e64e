"""A stage with several processes: the same run as with one, whatever becomes of one of them."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

import interruption
import pipeline_recipes as micro
from interruption import DEMOS, OWN, checkpoints, interrupt, meanwhile, nothing_is_left, workers
from pipeline_recipes import HEAD, Ran
from recipe_samples import refusal
from smallwit.cli import main
from smallwit.errors import UserError
from smallwit.pipeline.scheduler import StageFailed
from smallwit.pipeline.smoke import smoke_recipe
from smallwit.stages.train import TrainStage

STEPS = 12
STAGE = interruption.STAGE + "    processes: 2\n"
RECIPE = (
    HEAD.replace("max_new_tokens: 8", "max_new_tokens: 8, stages: [rl]")
    + "stages:\n"
    + STAGE.format(name="sft", start="small", source=DEMOS, objective="kind: cross_entropy, source: demos", steps=STEPS)
    + "    validation: {every: 5, problems: 3}\n"
    + STAGE.format(
        name="kd", start="sft", source=OWN, objective="kind: reverse_kl, source: own, teacher: large", steps=2
    )
    + STAGE.format(name="rl", start="kd", source=OWN, objective="kind: grpo, source: own", steps=STEPS)
)
SINGLE_PROCESS = RECIPE.replace("    processes: 2\n", "")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """The run that nobody interrupts."""
    return micro.once(
        tmp_path_factory, "parallel", lambda folder: micro.run(micro.write(folder, RECIPE), folder / "run")
    )


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return micro.write(tmp_path, RECIPE)


def at_step(run_dir: Path, stage: str, step: int) -> Callable[[], bool]:
    """Whether the stage has come so far, and both of its processes are there."""
    return lambda: bool(s := checkpoints(run_dir, stage)) and int(s[-1].name[5:]) >= step and len(workers()) == 2


@pytest.mark.slow
def test_a_recipe_with_two_processes_comes_to_what_one_comes_to(whole: Ran, tmp_path: Path) -> None:
    alone = micro.run(micro.write(tmp_path, SINGLE_PROCESS), tmp_path / "run")
    for stage in ("sft", "kd", "rl"):
        ours, theirs = whole.metrics(stage), alone.metrics(stage)
        assert [row["step"] for row in ours] == [row["step"] for row in theirs]
        assert ours[0].keys() == theirs[0].keys()
    for ours, theirs in zip(whole.metrics("sft"), alone.metrics("sft"), strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-4)
        assert ours.get("validation") == pytest.approx(theirs.get("validation"))
    for ours, theirs in zip(whole.ledger["stages"], alone.ledger["stages"], strict=True):
        assert (ours["name"], ours["steps"]) == (theirs["name"], theirs["steps"])
    sft, sft_alone = whole.ledger["stages"][0], alone.ledger["stages"][0]
    assert (sft["tokens"], sft["flops"]) == (sft_alone["tokens"], pytest.approx(sft_alone["flops"]))
    assert sft["peak_memory_gb"] > 1.5 * sft_alone["peak_memory_gb"], "that of both processes"


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_is_killed_ends_the_stage_which_goes_on_to_the_same_weights(
    recipe: Path, whole: Ran, rank: int
) -> None:
    run_dir = recipe.parent / "run"
    killed = []

    def kill() -> None:
        workers()[rank].kill()
        killed.append(time.monotonic())

    stopped = pytest.raises(StageFailed, match="stage rl: its process was killed")
    with meanwhile(kill, at_step(run_dir, "rl", 3)), stopped:
        micro.run(recipe, run_dir)
    assert time.monotonic() - killed[0] < 5
    nothing_is_left()
    assert micro.run(recipe, run_dir).computed == ["rl", "evaluate rl"]
    assert micro.weights(run_dir, "rl") == whole.weights("rl")


@pytest.mark.slow
def test_ctrl_c_saves_and_a_rerun_goes_on(recipe: Path, whole: Ran) -> None:
    run_dir = recipe.parent / "run"
    words = ["run", str(recipe), "--run-dir", str(run_dir)]
    with meanwhile(interrupt, at_step(run_dir, "rl", 3)):
        assert main(words) == 130
    nothing_is_left()
    assert 3 <= int(checkpoints(run_dir, "rl")[-1].name[5:]) < STEPS
    assert main(words) == 0
    assert micro.weights(run_dir, "rl") == whole.weights("rl")


@pytest.mark.slow
@pytest.mark.parametrize("share", ["first", "second"])
def test_what_one_process_fails_of_is_said_and_not_that_the_other_has_lost_it(recipe: Path, share: str) -> None:
    """The user's own verifier breaks in one process."""
    rank = {"first": "== 0", "second": "== 1"}[share]
    here = "torch.distributed.is_initialized() and torch.distributed.get_rank()"
    broken = f"import torch\n        assert not ({here} {rank}), 'a broken verifier'\n        "
    (recipe.parent / "sums.py").write_text(micro.TASK.replace("right =", f"{broken}right ="))
    with pytest.raises(UserError, match=r"Sums\.verify on problem .*: AssertionError: a broken verifier"):
        micro.run(recipe, recipe.parent / "run")
    nothing_is_left()


def test_more_processes_than_examples_are_refused(tmp_path: Path) -> None:
    path = micro.write(tmp_path, RECIPE)
    message = refusal(lambda: micro.read(path, "stages.sft.processes=5"))
    assert "processes is 5, and no source has more than 4 examples a step" in message
    assert micro.read(path, "stages.rl.processes=8").stages[-1].processes == 8  # type: ignore[union-attr]


def test_more_processes_than_devices_are_refused(tmp_path: Path) -> None:
    stages = {stage.name: stage for stage in micro.read(micro.write(tmp_path, RECIPE)).stages}
    assert isinstance(stages["sft"], TrainStage)
    assert stages["sft"].lacking_devices("cpu") is None
    said = stages["sft"].lacking_devices("mps")
    assert said is not None
    assert said.startswith("stage sft: processes is 2, one mps device each, and this machine has 1; ")


def test_smoke_keeps_several_processes(tmp_path: Path) -> None:
    path = micro.write(tmp_path, RECIPE.replace("processes: 2", "processes: 4"))
    assert {stage.processes for stage in smoke_recipe(micro.read(path)).stages} == {2}  # type: ignore[union-attr]
