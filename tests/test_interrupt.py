"""A signal or a full disk ends a run in good order, and the next one goes on."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import pipeline_recipes as micro
from interruption import (
    OWN,
    RECIPE,
    STAGE,
    STEPS,
    assert_same,
    checkpoints,
    children,
    interrupt,
    logged,
    meanwhile,
    nothing_is_left,
    workers,
)
from pipeline_recipes import Ran
from smallwit.cli import main
from smallwit.pipeline import processes

pytestmark = pytest.mark.slow


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return micro.write(tmp_path, RECIPE)


def slow_steps(folder: Path, *stages: str) -> tuple[Path, Path]:
    """A recipe whose stages take two seconds for a step and save only when they are stopped, and its run's folder."""
    head = micro.HEAD.replace("max_new_tokens: 8", "max_new_tokens: 8, stages: []") + "stages:\n"
    texts = [
        STAGE.format(name=name, start="small", source=OWN, objective="kind: grpo, source: own", steps=STEPS)
        for name in stages
    ]
    recipe = micro.write(folder, head + "".join(texts).replace("0.000001", "1000"))
    slow = "__import__('time').sleep(0.25)\n        score ="
    (folder / "sums.py").write_text(micro.TASK.replace("score =", slow))
    return recipe, folder / "run"


class TestSignals:
    """Ctrl-C and SIGTERM: what is under way is saved first."""

    @pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
    def test_the_first_fork_server_of_a_process_is_deaf_to_ctrl_c(self) -> None:
        """While it imports the heavy libraries it would end with a traceback."""
        script = (
            "import os\n"
            "from multiprocessing import forkserver\n"
            "from smallwit.pipeline.processes import fork_server\n"
            "fork_server()\n"
            "pid = forkserver._forkserver._forkserver_pid\n"
            "print(open(f'/proc/{pid}/status').read())\n"
            "os.kill(pid, 9)  # before it has imported them"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        (blocked,) = re.findall(r"^SigBlk:\s*(\w+)$", done.stdout, re.MULTILINE)
        assert int(blocked, 16) >> (signal.SIGINT - 1) & 1

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

        # Nothing is saved on the way, so what is found in the end was saved for the signal.
        with meanwhile(lambda: interrupt(number), lambda: len(logged(run_dir)) >= 5):
            assert main(words) == 130
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
        started = time.monotonic()
        with meanwhile(interrupt, children):
            assert main(["run", str(recipe), "--run-dir", str(run_dir), "--set", "evaluation.batch=1"]) == 130
        assert time.monotonic() - started < 30
        nothing_is_left()

    def test_a_step_that_takes_long_is_waited_for_and_named(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(processes, "REMINDER_SECONDS", 0.5)
        recipe, run_dir = slow_steps(tmp_path, "rl")
        with meanwhile(interrupt, lambda: logged(run_dir)):
            assert main(["run", str(recipe), "--run-dir", str(run_dir)]) == 130
        nothing_is_left()
        assert "rl: not saved yet after 1 s (Ctrl-C stops at once)" in capsys.readouterr().out
        (saved,) = checkpoints(run_dir, "rl")
        assert int(saved.name[5:]) == len(logged(run_dir))

    def test_a_stage_is_waited_for_when_another_one_fails(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        recipe, run_dir = slow_steps(tmp_path, "rl", "other")
        with meanwhile(lambda: workers()[1].kill(), lambda: len(workers()) == 2 and logged(run_dir)):
            assert main(["run", str(recipe), "--run-dir", str(run_dir)]) == 1
        nothing_is_left()
        printed = capsys.readouterr()
        assert "a stage has failed; the others save first (Ctrl-C stops at once)" in printed.out
        assert "stage other: its process was killed" in printed.err
        assert checkpoints(run_dir, "rl")

    def test_a_second_ctrl_c_stops_at_once(self, tmp_path: Path) -> None:
        """The evaluation is in a verifier that never comes back, so it cannot notice the first."""
        recipe = micro.write(tmp_path, micro.SHORT)
        stuck = micro.TASK.replace(
            "score =", "right or (open(__file__ + '.stuck', 'w'), __import__('time').sleep(1000))\n        score ="
        )
        (tmp_path / "sums.py").write_text(stuck)

        def twice() -> None:
            interrupt()
            time.sleep(0.5)
            assert children(), "the first one waits for the stage"
            interrupt()

        started = time.monotonic()
        with meanwhile(twice, (tmp_path / "sums.py.stuck").exists):
            assert main(["run", str(recipe), "--run-dir", str(tmp_path / "run")]) == 130
        assert time.monotonic() - started < 25
        nothing_is_left()


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
        monkeypatch.setattr("smallwit.pipeline.run_folder.FREE_BYTES", 0)
        run_dir = small_disk / "run"

        def fill() -> None:
            with (small_disk / "filler").open("wb", buffering=0) as file:
                try:
                    while True:
                        file.write(bytes(1000))
                except OSError:
                    return

        words = ["run", str(recipe), "--run-dir", str(run_dir), "--set", f"stages.sft.steps={STEPS}"]
        with meanwhile(fill, lambda: len(checkpoints(run_dir, "sft")) >= 2):
            assert main(words) == 1
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
        monkeypatch.setattr("smallwit.pipeline.run_folder.FREE_BYTES", 0)
        (small_disk / "run" / "store").mkdir(parents=True)
        subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
        assert main(["run", str(recipe), "--run-dir", str(small_disk / "run")]) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"smallwit: --run-dir {small_disk / 'run'}: cannot be written (Read-only file system)")
        assert error.count("\n") == 1
