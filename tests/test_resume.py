"""A run that is killed anywhere, or whose checkpoints are damaged, goes on to the same weights."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

import pipeline_recipes as micro
from interruption import (
    RECIPE,
    STAGES,
    STEPS,
    assert_same,
    checkpoints,
    children,
    command,
    half_made,
    in_mid_save,
    in_mid_step,
    is_alive,
    kill_children,
    kill_fork_server,
    last,
    meanwhile,
    tree,
)
from pipeline_recipes import Ran
from smallwit.pipeline.scheduler import StageFailed

pytestmark = pytest.mark.slow


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return micro.write(tmp_path, RECIPE)


class TestKill:
    """`kill -9` of a stage's process: what is left behind is what a power cut would leave."""

    @pytest.mark.parametrize("stage", STAGES)
    @pytest.mark.parametrize("moment", ["step", "save"])
    def test_the_stage_goes_on_to_the_same_weights(
        self, recipe: Path, whole: Ran, unmake: Callable[[str], Path], stage: str, moment: str
    ) -> None:
        run_dir = unmake(stage)

        def kill() -> None:
            if moment == "save":
                in_mid_save(run_dir, stage, children)
            else:
                in_mid_step(run_dir, stage, random.Random(stage))
            kill_children()

        with meanwhile(kill), pytest.raises(StageFailed, match=f"stage {stage}: its process was killed"):
            micro.run(recipe, run_dir)
        assert checkpoints(run_dir, stage), "it was killed on its way"
        assert bool(half_made(run_dir, stage)) or moment == "step"

        ran = micro.run(recipe, run_dir)
        assert ran.computed == [stage]
        assert_same(run_dir, whole, [stage])
        assert not half_made(run_dir, stage)

    def test_kills_of_single_processes_in_turn_change_nothing(
        self, recipe: Path, whole: Ran, unmake: Callable[[str], Path]
    ) -> None:
        """The stage's process, the fork server that it came from, the stage's process again."""
        run_dir = unmake("rl")
        reached, orphans = [], []
        kills: list[Callable[[], object]] = [kill_children, lambda: orphans.extend(kill_fork_server()), kill_children]
        for step, kill, why in zip((3, 8, 13), kills, ("killed", "lost: its fork server", "killed"), strict=True):

            def reached_it(step: int = step) -> bool:
                return int(last(checkpoints(run_dir, "rl"))) >= step

            with meanwhile(kill, reached_it), pytest.raises(StageFailed, match=f"stage rl: its process was {why}"):
                micro.run(recipe, run_dir)
            assert not any(map(is_alive, orphans)), "what can still write would write into the next attempt's log"
            reached.append(int(checkpoints(run_dir, "rl")[-1].name[5:]))
        assert orphans
        assert reached == sorted(set(reached)), "each attempt went on from where the one before was"
        micro.run(recipe, run_dir)
        assert_same(run_dir, whole, ["rl"])

    def test_the_whole_tree_and_then_the_parent_alone_may_be_killed(self, recipe: Path, whole: Ran) -> None:
        """In `sft` in mid-step, in `kd` in mid-save, from nothing to the end of the recipe.

        The last time only the parent is killed, by a signal that it cannot notice: no stage outlives it.
        """
        run_dir = recipe.parent / "run"
        for stage, whom in zip(STAGES, ("all", "all", "parent"), strict=True):
            with command(recipe, run_dir) as process:
                if stage == "kd":
                    in_mid_save(run_dir, stage, lambda process=process: tree(process))
                else:
                    in_mid_step(run_dir, stage, random.Random(stage))
                doomed = tree(process)
                for one in doomed if whom == "all" else doomed[:1]:
                    one.kill()
                gone, alive = psutil.wait_procs(doomed, timeout=30)
            assert len(gone) == len(doomed) > 1
            assert alive == []
            assert checkpoints(run_dir, stage)
        done = micro.run(recipe, run_dir)
        assert done.computed[0] == "rl"
        assert_same(run_dir, whole)
        assert [m["scores"] for m in done.results["models"]] == [m["scores"] for m in whole.results["models"]]
        assert done.results["seconds"] > sum(stage["seconds"] for stage in done.ledger["stages"])


class TestDamage:
    """Checkpoints that a disk, or a hand, has damaged."""

    @pytest.fixture(scope="class")
    def killed(self, whole: Ran, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """A run that was killed in `kd` with two checkpoints."""
        folder = tmp_path_factory.mktemp("killed")
        run_dir = folder / "run"
        shutil.copytree(whole.run_dir, run_dir, symlinks=True)
        shutil.rmtree(micro.artifact(run_dir, "kd"))
        with (
            meanwhile(kill_children, lambda: int(last(checkpoints(run_dir, "kd"))) >= 5),
            pytest.raises(StageFailed),
        ):
            micro.run(micro.write(folder, RECIPE), run_dir)
        assert len(checkpoints(run_dir, "kd")) >= 2
        return run_dir

    @pytest.fixture
    def stopped(self, killed: Path, recipe: Path) -> Path:
        """A copy of it, beside the recipe."""
        return shutil.copytree(killed, recipe.parent / "run", symlinks=True)

    @pytest.mark.parametrize("damage", ["truncated", "flipped", "deleted", "no manifest"])
    def test_the_one_before_is_taken_and_the_damage_named(
        self, stopped: Path, recipe: Path, whole: Ran, damage: str
    ) -> None:
        newest = checkpoints(stopped, "kd")[-1]
        file = newest / ("manifest.json" if damage == "no manifest" else "tensors.pt")
        content = bytearray(file.read_bytes())
        if damage == "truncated":
            file.write_bytes(content[: len(content) // 2])
        elif damage == "flipped":
            content[len(content) // 2] ^= 0x10
            file.write_bytes(content)
        else:
            file.unlink()
        ran = micro.run(recipe, stopped)
        assert ran.computed == ["kd"]
        assert f"kd: a checkpoint is damaged and left out: {newest}" in ran.printed
        assert_same(stopped, whole, ["kd"])

    def test_when_all_are_damaged_each_is_named_and_the_stage_begins_anew(
        self, stopped: Path, recipe: Path, whole: Ran
    ) -> None:
        all_of_them = checkpoints(stopped, "kd")
        for folder in all_of_them:
            (folder / "state.json").write_text("{}")
        ran = micro.run(recipe, stopped)
        assert [line for line in ran.printed.splitlines() if "left out" in line][-1].count("state.json: 2 bytes") == 1
        assert ran.printed.count("a checkpoint is damaged and left out") == len(all_of_them)
        assert_same(stopped, whole, ["kd"])

    def test_checkpoints_of_another_setting_are_not_gone_on_from(self, stopped: Path, recipe: Path, whole: Ran) -> None:
        fresh = shutil.copytree(whole.run_dir, recipe.parent / "fresh", symlinks=True)
        ours, theirs = (
            micro.run(recipe, run_dir, "stages.kd.optimizer.lr=0.002", only=["kd"]) for run_dir in (stopped, fresh)
        )
        assert [row["step"] for row in ours.metrics("kd")] == list(range(1, STEPS + 1))
        assert ours.weights("kd") == theirs.weights("kd") != whole.weights("kd")
