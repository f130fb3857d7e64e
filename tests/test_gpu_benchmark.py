"""`make bench-gpu` and `make gpu-kit`: on the CPU, in tiny sizes."""

import json
import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
sys.path.append(str(BENCHMARKS))

import gpu  # noqa: E402
import gpu_compare  # noqa: E402
import gpu_kit  # noqa: E402
import gpu_lacking  # noqa: E402
import gpu_recipes  # noqa: E402
import gpu_sizes  # noqa: E402
import gpu_speed  # noqa: E402
from gpu import Part  # noqa: E402
from smallwit.recipe.file import load_recipe  # noqa: E402

LOSSES = {stage: {"loss": [2.0, 1.0]} for stage in (*gpu_compare.FIXED_TOKENS, *gpu_compare.OWN_TOKENS)}
REFERENCE = {"series": LOSSES, "scores": {"sft": 0.8, "grpo": 0.7}}


@pytest.mark.slow
def test_every_speed_part_measures_something_on_a_cpu() -> None:
    bench = gpu_speed.Bench("cpu", gpu_sizes.TINY)
    for name in ("sft", "decode", "grpo"):
        numbers = [number for found in gpu_speed.PARTS[name](bench) for number in found]
        assert numbers, name


@pytest.mark.slow
def test_the_recipe_runs_by_the_command_without_a_terminal_or_a_home(tmp_path: Path) -> None:
    """In a part that runs `smallwit run` in a process of its own."""
    words = [sys.executable, str(BENCHMARKS / "gpu.py"), "--device", "cpu", "--out", str(tmp_path)]
    homeless = os.environ | {"HOME": "/dev/null"}
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    done = subprocess.run([*words, "--part", "recipe-cpu"], **pipes, text=True, env=homeless)
    assert done.returncode == 0, done.stdout
    part = json.loads((tmp_path / "gpu-parts.jsonl").read_text())
    numbers = part["numbers"]
    assert (part["part"], part["status"]) == ("recipe-cpu", "ok")
    assert numbers["series"].keys() == {*gpu_compare.FIXED_TOKENS, *gpu_compare.OWN_TOKENS}
    # A model that has learnt nothing, or everything, would have the same score on any device.
    assert 0.3 < numbers["scores"]["sft"] < 0.97
    assert json.loads((tmp_path / "gpu.json").read_text()) == []  # with nothing to compare it with


def script(folder: Path, text: str) -> Part:
    """A part that runs this program."""
    (folder / "part.py").write_text(text)
    return Part("example", 30.0, str(folder / "part.py"), ())


@pytest.mark.slow
def test_a_part_that_is_stopped_leaves_the_numbers_it_had(tmp_path: Path) -> None:
    part = script(tmp_path, "import time\nprint('{\"first\": 1}', flush=True)\ntime.sleep(60)\n")
    started = time.monotonic()
    result = gpu.run_part(part, 2.0, [])
    assert time.monotonic() - started < 30
    assert (result["status"], result["numbers"]) == ("stopped at its limit", {"first": 1})


def test_a_part_that_fails_says_why_in_its_last_line(tmp_path: Path) -> None:
    result = gpu.run_part(script(tmp_path, "raise ValueError('tensors on two devices')\n"), 30.0, [])
    assert (result["status"], result["error"]) == ("failed", "ValueError: tensors on two devices")


def test_no_part_is_started_after_the_deadline(tmp_path: Path) -> None:
    assert gpu.run_part(script(tmp_path, "print('{\"ran\": 1}')"), 0.0, [])["numbers"] == {}


def test_all_parts_fit_into_nine_minutes() -> None:
    # Those of a group run side by side where there are cores for it; the deadline holds for the others.
    assert gpu.SECONDS < 9 * 60
    groups = gpu.parts_of("cuda", False, Path("work"))
    assert sum(max(part.limit for part in group) for group in groups) < 1.2 * gpu.SECONDS


@pytest.mark.parametrize(("dtype", "within", "beyond"), [("float32", 1e-4, 1e-2), ("bfloat16", 1e-2, 0.06)])
def test_losses_are_held_to_the_bound_of_their_number_format(dtype: str, within: float, beyond: float) -> None:
    for off, held in ((within, True), (beyond, False)):
        ours = {stage: {"loss": [2.0, 1.0 + off]} for stage in LOSSES}
        parts = {"recipe-cpu": REFERENCE, f"recipe-{dtype}": REFERENCE | {"series": ours}}
        lines = [line for line in gpu_compare.comparisons(parts) if line.metric == "loss"]
        assert lines
        assert {line.held for line in lines} == {held}


def test_scores_in_float32_may_differ_by_two_of_a_hundred() -> None:
    for score, held in ((0.78, True), (0.77, False)):
        parts = {"recipe-cpu": REFERENCE, "recipe-float32": REFERENCE | {"scores": {"sft": score, "grpo": 0.7}}}
        lines = {line.case: line.held for line in gpu_compare.comparisons(parts) if line.metric == "score"}
        assert lines == {"0-recipe-float32-sft": held, "0-recipe-float32-grpo": True}


def test_resumed_weights_may_be_no_further_off_than_repeated_ones() -> None:
    rl = {"repeated": 0.0, "resumed": 5e-3}
    lines = gpu_compare.comparisons({"resume-float32": {"sft": {"repeated": 4e-3, "resumed": 5e-3}, "rl": rl}})
    assert {line.case: line.held for line in lines} == {"0-resume-float32-sft": True, "0-resume-float32-rl": False}


def test_a_run_that_will_be_killed_saves_after_every_step(tmp_path: Path) -> None:
    recipe = load_recipe(gpu_recipes.write(tmp_path, gpu_recipes.INTERRUPTED))
    assert [getattr(stage, "checkpoint_seconds", 1.0) < 1e-3 for stage in recipe.stages] == [True, True]


def wheel(folder: Path, name: str, version: str, *needs: str) -> Path:
    """A wheel with nothing in it but what it requires."""
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with ZipFile(path, "w") as archive:
        lines = [f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {need}" for need in needs)]
        archive.writestr(f"{name}-{version}.dist-info/METADATA", "\n".join(lines))
    return path


def lacking(folder: Path, *requirements: str) -> tuple[list[str], list[str], list[str]]:
    wheels = {path.name.partition("-")[0]: path for path in folder.glob("*.whl")}
    install, missing, unsuitable = gpu_lacking.lacking(wheels, [Requirement(text) for text in requirements])
    return sorted(path.name.partition("-")[0] for path in install), missing, unsuitable


def test_only_wheels_that_the_machine_lacks_are_installed(tmp_path: Path) -> None:
    for name, needs in {"absent": ["below>=1", "extra-only; extra == 'more'"], "below": [], "torch": []}.items():
        wheel(tmp_path, name, "1.0", *needs)
    assert lacking(tmp_path, "absent", "torch>=2") == (["absent", "below"], [], [])


def test_a_package_in_a_version_that_does_not_suit_is_replaced_if_the_kit_has_it(tmp_path: Path) -> None:
    wheel(tmp_path, "pytest", "1000.0")
    install, missing, unsuitable = lacking(tmp_path, "pytest>=1000", "torch>=1000")
    assert (install, missing) == (["pytest"], [])
    assert unsuitable[0].endswith("torch>=1000 is asked for")


def test_what_is_in_no_piece_is_named(tmp_path: Path) -> None:
    assert lacking(tmp_path, "smallwit-has-no-such-package>=2")[1] == ["smallwit-has-no-such-package>=2"]


def test_pieces_hold_every_file_once_and_the_source_comes_first(tmp_path: Path) -> None:
    wheels = []
    for name, size in {"large": 60_000, "middle": 30_000, "small": 10_000}.items():
        wheels.append(tmp_path / f"{name}.whl")
        wheels[-1].write_bytes(b"x" * size)
    groups = gpu_kit.split([(path.name, path.stat().st_size) for path in wheels], limit=80_000)
    assert groups == [["small.whl", "middle.whl"], ["large.whl"]]
    source = subprocess.run(["tar", "-cf", "-", "-C", str(BENCHMARKS), "bench.py"], capture_output=True, check=True)
    pieces = gpu_kit.pack(source.stdout, wheels, tmp_path)
    with tarfile.open(pieces[0]) as first:
        assert first.getnames()[0] == "bench.py"
    with pytest.raises(ValueError, match="large"):
        gpu_kit.split([("large", 1001)], limit=1000)
