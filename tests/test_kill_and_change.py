"""A run that was killed goes on on another machine, with a patched library, or after a change that is adopted."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import pipeline_recipes as micro
from interruption import checkpoints, kill_children, last, meanwhile
from pipeline_recipes import SHORT, Ran
from smallwit.pipeline import plan as planning
from smallwit.pipeline.scheduler import StageFailed

pytestmark = pytest.mark.slow
STEPS = 30
RECIPE = SHORT.replace("steps: 4", f"steps: {STEPS}\n    checkpoint_seconds: 0.000001")
LEARNING_RATE = "stages.sft.optimizer.lr=0.002"


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was killed in its stage; its recipe lies beside it."""
    folder = tmp_path_factory.mktemp("killed")
    recipe, run_dir = micro.write(folder, RECIPE), folder / "run"
    with (
        meanwhile(kill_children, lambda: int(last(checkpoints(run_dir, "sft"))) >= 5),
        pytest.raises(StageFailed),
    ):
        micro.run(recipe, run_dir)
    return run_dir


@pytest.fixture
def run(killed: Path, tmp_path: Path) -> Callable[..., Ran]:
    """Run the recipe in a copy of what was killed."""
    recipe = micro.write(tmp_path, RECIPE)
    shutil.copytree(killed, tmp_path / "run", symlinks=True)
    return lambda *overrides, **options: micro.run(recipe, tmp_path / "run", *overrides, **options)


def goes_on(ran: Ran) -> bool:
    """Whether it computed no step that had been saved: the time of its steps goes on too."""
    assert [row["step"] for row in ran.metrics("sft")] == list(range(1, STEPS + 1))
    return ran.computed == ["sft", "evaluate sft"] and "goes on from there" in ran.printed


def test_on_a_machine_with_other_cores(run: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "cores", lambda: 4)
    ran = run()
    assert goes_on(ran)
    assert "threads 1 → 2" in ran.printed
    assert [attempt["threads"] for attempt in ran.manifest("sft")["made_with"]] == [1, 2]


def test_with_another_patch_of_a_library(run: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch) -> None:
    installed = planning.version
    monkeypatch.setattr(planning, "version", lambda name: installed(name) + (".7" if name == "torch" else ""))
    assert goes_on(run())


def test_with_another_learning_rate_that_is_adopted(run: Callable[..., Ran], killed: Path) -> None:
    ran = run(LEARNING_RATE, adopt=["sft"])
    saved = int(checkpoints(killed, "sft")[-1].name[5:])
    rates = [row["lr"] for row in ran.metrics("sft")]
    assert rates[saved - 1] < 0.001 < rates[saved], "of the recipe at that step"
    assert ran.manifest("sft")["adopted"]["what"] == f"a checkpoint at step {saved}"
    assert next(stage for stage in ran.ledger["stages"] if stage["name"] == "sft")["adopted"] == [
        "stages.sft.optimizer.lr 0.001 → 0.002"
    ]
    back = run()
    assert "sft: a checkpoint" not in back.printed
    assert back.metrics("sft")[saved]["lr"] < 0.001, "the other work was left as it was"
