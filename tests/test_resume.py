"""A run that is stopped anywhere, by any means, goes on to the same weights that it would have had.

Every stage here saves after each of its steps, so that there is a save to interrupt at every moment.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

import pipeline_recipes as micro
from pipeline_recipes import HEAD, Ran
from smallwit.cli import main
from smallwit.pipeline import StageFailed

STEPS = 30
STAGE = """\
  - name: {name}
    kind: train
    from: {start}
    sources: {{{source}}}
    objectives: [{{{objective}}}]
    steps: {steps}
    checkpoint_seconds: 0.000001
"""
OWN = "own: {kind: rollouts, prompts: 2, group: 4, max_new_tokens: 8}"
DEMOS = "demos: {kind: demonstrations, batch: 4}"
RECIPE = (
    HEAD.replace("max_new_tokens: 8", "max_new_tokens: 8, stages: [rl]")
    + "stages:\n"
    + STAGE.format(name="teacher", start="large", source=DEMOS, objective="kind: cross_entropy, source: demos", steps=2)
    + STAGE.format(name="sft", start="small", source=DEMOS, objective="kind: cross_entropy, source: demos", steps=STEPS)
    + "    validation: {every: 7, problems: 2}\n"
    + STAGE.format(
        name="kd", start="sft", source=OWN, objective="kind: forward_kl, source: own, teacher: teacher", steps=STEPS
    )
    + STAGE.format(name="rl", start="kd", source=OWN, objective="kind: grpo, source: own", steps=STEPS)
)
STAGES = ["sft", "kd", "rl"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """The run that nobody interrupts."""
    folder = tmp_path_factory.mktemp("whole")
    return micro.run(micro.write(folder, RECIPE), folder / "run")


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return micro.write(tmp_path, RECIPE)


@pytest.fixture
def unmake(whole: Ran, recipe: Path) -> Callable[[str], Path]:
    """A copy of the whole run in which one stage has yet to be done; its folder."""

    def copy(stage: str) -> Path:
        run_dir = recipe.parent / "run"
        shutil.copytree(whole.run_dir, run_dir, symlinks=True)
        shutil.rmtree(micro.artifact(run_dir, stage))
        return run_dir

    return copy


def checkpoints(run_dir: Path, stage: str) -> list[Path]:
    """A stage's published checkpoints, the oldest first."""
    return sorted((run_dir / "stages").glob(f"*-{stage}/checkpoints/step_*"))


def half_made(run_dir: Path, stage: str) -> list[Path]:
    """What a save that is under way has made so far."""
    return list((run_dir / "stages").glob(f"*-{stage}/checkpoints/.step_*.tmp"))


def children() -> list[psutil.Process]:
    """The processes below the fork server of this process: the stage that runs, and what it has started."""
    servers = psutil.Process(os.getpid()).children()
    found = [process for server in servers for process in server.children(recursive=True)]
    return [process for process in found if process.status() != psutil.STATUS_ZOMBIE]


def tree(process: psutil.Process) -> list[psutil.Process]:
    try:
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def wait_until(condition: Callable[[], object], seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.0005)


def nothing_is_left() -> None:
    """A process that was only just being started when the signal came ends by itself: nobody holds its lifeline."""
    wait_until(lambda: not children(), seconds=5.0)


def in_mid_save(run_dir: Path, stage: str, processes: Callable[[], list[psutil.Process]]) -> None:
    """Return with the processes frozen while a checkpoint is half made, after a few whole ones."""
    wait_until(lambda: len(checkpoints(run_dir, stage)) >= 2)
    while True:
        wait_until(lambda: half_made(run_dir, stage))
        frozen = processes()
        for process in frozen:
            process.suspend()
        if half_made(run_dir, stage):
            return
        for process in frozen:
            process.resume()


def in_mid_step(run_dir: Path, stage: str, chance: random.Random) -> None:
    """Return at some moment after the first few steps."""
    step = chance.randint(3, STEPS - 8)
    wait_until(lambda: (saved := checkpoints(run_dir, stage)) and int(saved[-1].name[5:]) >= step)
    time.sleep(chance.uniform(0, 0.05))


def assert_same(run_dir: Path, whole: Ran, stages: list[str] = STAGES) -> None:
    """The same weights, bit for bit, and the same numbers on the way to them."""
    for stage in stages:
        assert micro.weights(run_dir, stage) == whole.weights(stage)
        steps = {row["step"]: row for row in micro.without_times(whole.metrics(stage))}
        rows = micro.without_times(micro.metrics(run_dir, stage))
        assert [row["step"] for row in rows] == sorted({row["step"] for row in rows}), "no step is logged twice"
        assert rows == [steps[row["step"]] for row in rows]
        assert rows[-1]["step"] == STEPS
        assert not checkpoints(run_dir, stage)


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
            for process in children():
                process.kill()

        killer = threading.Thread(target=kill)
        killer.start()
        with pytest.raises(StageFailed, match=f"stage {stage}: its process was killed"):
            micro.run(recipe, run_dir)
        killer.join()
        assert checkpoints(run_dir, stage), "it was killed on its way"
        assert bool(half_made(run_dir, stage)) or moment == "step"

        ran = micro.run(recipe, run_dir)
        assert ran.computed == [stage]
        assert_same(run_dir, whole, [stage])
        assert not half_made(run_dir, stage)

    def test_three_kills_in_a_row_change_nothing(self, recipe: Path, whole: Ran, unmake: Callable[[str], Path]) -> None:
        run_dir = unmake("rl")
        reached = []
        for step in (5, 12, 20):

            def kill(step: int = step) -> None:
                wait_until(lambda: (saved := checkpoints(run_dir, "rl")) and int(saved[-1].name[5:]) >= step)
                for process in children():
                    process.kill()

            killer = threading.Thread(target=kill)
            killer.start()
            with pytest.raises(StageFailed):
                micro.run(recipe, run_dir)
            killer.join()
            reached.append(int(checkpoints(run_dir, "rl")[-1].name[5:]))
        assert reached == sorted(set(reached)), "each attempt went on from where the one before was"
        micro.run(recipe, run_dir)
        assert_same(run_dir, whole, ["rl"])

    @pytest.mark.slow
    def test_the_whole_tree_killed_again_and_again(self, recipe: Path, whole: Ran) -> None:
        """Every stage in mid-step and in mid-save, from nothing to the end of the recipe."""
        run_dir = recipe.parent / "run"
        chance = random.Random(0)
        for stage in STAGES:
            for moment in ("step", "save"):
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

    @pytest.mark.slow
    def test_no_stage_outlives_its_parent(self, recipe: Path, whole: Ran) -> None:
        """Only the parent is killed, by a signal that it cannot notice."""
        run_dir = recipe.parent / "run"
        with command(recipe, run_dir) as process:
            wait_until(lambda: checkpoints(run_dir, "rl"))
            others = tree(process)[1:]
            process.kill()
            gone, alive = psutil.wait_procs(others, timeout=30)
        assert gone
        assert alive == []
        micro.run(recipe, run_dir)
        assert_same(run_dir, whole)


class TestSignals:
    """Ctrl-C and SIGTERM: what is under way is saved first."""

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_a_signal_saves_ends_with_130_and_a_rerun_goes_on(
        self,
        recipe: Path,
        whole: Ran,
        unmake: Callable[[str], Path],
        number: int,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        run_dir = unmake("rl")
        words = ["run", str(recipe), "--run-dir", str(run_dir), "--set", "stages.rl.checkpoint_seconds=1000"]

        def interrupt() -> None:
            # Nothing is saved on the way, so what is found in the end was saved for the signal.
            wait_until(lambda: len(logged(run_dir)) >= 5)
            os.kill(os.getpid(), number)

        interrupter = threading.Thread(target=interrupt)
        interrupter.start()
        assert main(words) == 130
        interrupter.join()
        nothing_is_left()
        assert capsys.readouterr().err == "smallwit: interrupted; run the same command again to go on from here\n"
        (saved,) = checkpoints(run_dir, "rl")
        assert int(saved.name[5:]) == len(logged(run_dir)) >= 5
        assert main(words) == 0
        assert_same(run_dir, whole, ["rl"])
        assert len(micro.metrics(run_dir, "rl")) == STEPS

    def test_an_evaluation_stops_too(self, recipe: Path, unmake: Callable[[str], Path]) -> None:
        run_dir = unmake("rl")
        shutil.rmtree(run_dir / "store" / (run_dir / "evaluation" / "rl").readlink().name)
        slow = micro.TASK.replace("right =", "import time; time.sleep(0.2)\n        right =")
        (recipe.parent / "sums.py").write_text(slow)
        threading.Thread(target=interrupt_when, args=(lambda: children(),), daemon=True).start()
        started = time.monotonic()
        assert main(["run", str(recipe), "--run-dir", str(run_dir), "--set", "evaluation.batch=1"]) == 130
        assert time.monotonic() - started < 30
        nothing_is_left()

    def test_a_second_ctrl_c_stops_at_once(self, tmp_path: Path) -> None:
        """The evaluation is in a verifier that never comes back, so it cannot notice the first."""
        recipe = micro.write(tmp_path, micro.SHORT)
        stuck = micro.TASK.replace("right =", "import time; time.sleep(1000)\n        right =")
        (tmp_path / "sums.py").write_text(stuck)

        def twice() -> None:
            wait_until(lambda: list(tmp_path.glob("run/stages/*-sft/artifact")) and children())
            time.sleep(1.0)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1.0)
            assert children(), "the first one waits for the stage"
            os.kill(os.getpid(), signal.SIGINT)

        interrupter = threading.Thread(target=twice)
        interrupter.start()
        started = time.monotonic()
        assert main(["run", str(recipe), "--run-dir", str(tmp_path / "run")]) == 130
        assert time.monotonic() - started < 25
        interrupter.join()
        nothing_is_left()


class TestDamage:
    """Checkpoints that a disk, or a hand, has damaged."""

    @pytest.fixture
    def stopped(self, recipe: Path, unmake: Callable[[str], Path]) -> Path:
        """A run that was killed in `kd` with two checkpoints."""
        run_dir = unmake("kd")
        killer = threading.Thread(target=kill_when, args=(lambda: int(last(checkpoints(run_dir, "kd"))) >= 10,))
        killer.start()
        with pytest.raises(StageFailed):
            micro.run(recipe, run_dir)
        killer.join()
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


class TestDisk:
    @pytest.fixture
    def small_disk(self, tmp_path: Path) -> Iterator[Path]:
        """A file system of 2 MB."""
        folder = tmp_path / "disk"
        folder.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
        if sys.platform != "linux" or os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
            pytest.skip("a small file system can be mounted by root on Linux only")
        yield folder
        subprocess.run(["umount", "--lazy", str(folder)], check=True)

    def test_a_full_disk_is_said_in_one_line_and_harms_no_checkpoint(
        self,
        recipe: Path,
        whole: Ran,
        small_disk: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.setattr("smallwit.run_folder.FREE_BYTES", 0)
        run_dir = small_disk / "run"

        def fill() -> None:
            wait_until(lambda: len(checkpoints(run_dir, "sft")) >= 2)
            with (small_disk / "filler").open("wb") as file:
                try:
                    while True:
                        file.write(bytes(1000))
                        file.flush()
                except OSError:
                    return

        filler = threading.Thread(target=fill)
        filler.start()
        words = ["run", str(recipe), "--run-dir", str(run_dir), "--set", f"stages.sft.steps={STEPS}"]
        assert main(words) == 1
        filler.join()
        error = capsys.readouterr().err
        assert "No space left on device; free some space and run the same command again" in error
        assert error.count("\n") == 1
        saved = checkpoints(run_dir, "sft")
        assert saved
        (small_disk / "filler").unlink()
        assert main(words) == 0
        assert "damaged" not in capsys.readouterr().out
        assert micro.weights(run_dir, "sft") == whole.weights("sft")

    def test_a_disk_that_has_become_read_only_is_refused(
        self, recipe: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr("smallwit.run_folder.FREE_BYTES", 0)
        (small_disk / "run" / "store").mkdir(parents=True)
        subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
        assert main(["run", str(recipe), "--run-dir", str(small_disk / "run")]) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"smallwit: --run-dir {small_disk / 'run'}: cannot be written (Read-only file system)")
        assert error.count("\n") == 1


def logged(run_dir: Path) -> list[str]:
    """What `rl` has logged so far."""
    file = next(iter((run_dir / "stages").glob("*-rl/checkpoints/*.jsonl")), None)
    return file.read_text().splitlines() if file is not None else []


def last(folders: list[Path]) -> str:
    return folders[-1].name[5:] if folders else "0"


def interrupt_when(condition: Callable[[], object]) -> None:
    wait_until(condition)
    os.kill(os.getpid(), signal.SIGINT)


def kill_when(condition: Callable[[], object]) -> None:
    wait_until(condition)
    for process in children():
        process.kill()


class command:
    """The command line in a process of its own, which is gone when the block ends."""

    def __init__(self, recipe: Path, run_dir: Path) -> None:
        self.words = [sys.executable, "-m", "smallwit", "run", str(recipe), "--run-dir", str(run_dir)]

    def __enter__(self) -> psutil.Popen:
        self.process = psutil.Popen(self.words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return self.process

    def __exit__(self, *error: object) -> None:
        for process in tree(self.process):
            process.kill()
        self.process.wait()
