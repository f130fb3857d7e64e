"""A run that is killed anywhere, or whose checkpoints are damaged, goes on to the same weights."""

import random
from collections.abc import Callable
from itertools import cycle
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
    wait_until,
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
        for step, kill, why in zip((5, 12, 20), kills, ("killed", "lost: its fork server", "killed"), strict=True):

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

    def test_the_whole_tree_killed_again_and_again(self, recipe: Path, whole: Ran) -> None:
        """Every stage, one in mid-step and the next in mid-save, from nothing to the end of the recipe."""
        run_dir = recipe.parent / "run"
        chance = random.Random(0)
        for stage, moment in zip(STAGES, cycle(("step", "save")), strict=False):
            with command(recipe, run_dir) as process:
                if moment == "save":
                    in_mid_save(run_dir, stage, lambda process=process: tree(process))
                else:
                    in_mid_step(run_dir, stage, chance)
                doomed = tree(process)
                for one in doomed:
                    one.kill()
                psutil.wait_procs(doomed, timeout=30)
            assert checkpoints(run_dir, stage)
        done = micro.run(recipe, run_dir)
        assert done.computed[0] == "rl"
        assert_same(run_dir, whole)
        assert [m["scores"] for m in done.results["models"]] == [m["scores"] for m in whole.results["models"]]
        assert done.results["seconds"] > sum(stage["seconds"] for stage in done.ledger["stages"])

    def test_no_stage_outlives_its_parent(self, recipe: Path, unmake: Callable[[str], Path]) -> None:
        """Only the parent is killed, by a signal that it cannot notice."""
        run_dir = unmake("rl")
        with command(recipe, run_dir) as process:
            wait_until(lambda: checkpoints(run_dir, "rl"))
            others = tree(process)[1:]
            process.kill()
            gone, alive = psutil.wait_procs(others, timeout=30)
        assert gone
        assert alive == []


class TestDamage:
    """Checkpoints that a disk, or a hand, has damaged."""

    @pytest.fixture
    def stopped(self, recipe: Path, unmake: Callable[[str], Path]) -> Path:
        """A run that was killed in `kd` with two checkpoints."""
        run_dir = unmake("kd")
        with (
            meanwhile(kill_children, lambda: int(last(checkpoints(run_dir, "kd"))) >= 10),
            pytest.raises(StageFailed),
        ):
            micro.run(recipe, run_dir)
        assert len(checkpoints(run_dir, "kd")) >= 2
        return run_dir

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

    def test_checkpoints_of_another_setting_are_not_gone_on_from(self, stopped: Path, recipe: Path) -> None:
        ran = micro.run(recipe, stopped, "stages.kd.optimizer.lr=0.002")
        assert [row["step"] for row in ran.metrics("kd")] == list(range(1, STEPS + 1))
        fresh = micro.run(recipe, recipe.parent / "fresh", "stages.kd.optimizer.lr=0.002")
        assert ran.weights("kd") == fresh.weights("kd")
