"""What a run writes to is never a link: it may point to anybody's file. The folder of the run itself may be one."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from smallwit.errors import UserError
from smallwit.evaluation.sample_file import SampleFile
from smallwit.pipeline.run_folder import RunFolder
from smallwit.storage.artifacts import METRICS, make_link
from smallwit.storage.journal import Journal
from smallwit.storage.locks import occupied


def _lock(path: Path) -> None:
    with occupied(path.parent, "--out o"):
        pass


@pytest.mark.parametrize(
    ("name", "use"),
    [(".lock", _lock), ("calls.jsonl", Journal), ("task.jsonl", SampleFile)],
    ids=["lock", "journal", "samples"],
)
@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_a_file_that_is_no_ordinary_one_is_named_and_left_alone(
    name: str, use: Callable[[Path], object], kind: str, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.write_text("somebody's\n")
    path = tmp_path / name
    if kind == "link":
        path.symlink_to(other)
    else:
        os.mkfifo(path)
    with pytest.raises(UserError, match=name.replace(".", r"\.")):
        use(path)
    assert other.read_text() == "somebody's\n"


@pytest.mark.parametrize(
    "place", ["store", "stages", "evaluation", "store/key", "stages/00-sft", "stages/00-sft/checkpoints/step_00000001"]
)
def test_a_link_within_a_run_is_refused_by_name(place: str, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    link = tmp_path / "run" / place
    link.parent.mkdir(parents=True)
    link.symlink_to(tmp_path / "other")
    with pytest.raises(UserError, match=f"run/{place}: is a symbolic link"), RunFolder(tmp_path / "run").occupy():
        pass


def test_a_run_may_be_on_another_disk_and_has_links_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "runs").symlink_to(tmp_path / "disk")
    run = RunFolder(tmp_path / "runs" / "a")
    make_link(run.stages / "00-sft" / METRICS, run.store / "key" / METRICS)
    make_link(run.evaluation / "sft", run.store / "other")
    with run.occupy():
        assert (tmp_path / "disk" / "a" / "store").is_dir()
