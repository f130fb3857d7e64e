"""`smallwit gc` lists, and deletes, what the recipe of a run does not name, and nothing else."""

import os
from pathlib import Path

import pytest

from key_run import LEARNING_RATE, Run
from recipe_samples import refusal
from smallwit.cli import main
from smallwit.pipeline.gc import collect
from smallwit.storage.artifacts import make_link
from smallwit.storage.locks import occupied


@pytest.fixture
def ran(tmp_path: Path) -> Run:
    """A recipe that was run with two learning rates: its plan is that of the second."""
    ran = Run(tmp_path)
    old, new = ran.plan(), ran.plan(LEARNING_RATE)
    ran.publish(old, "tokenizer", "sft", "evaluate sft")
    ran.begin_sft(old)
    make_link(ran.folder.work(old.nodes["sft"], old) / "artifact", ran.folder.artifact(old.nodes["sft"]))
    ran.begin_sft(new, step=13)
    ran.folder.write_plan(new)
    return ran


def _files(folder: Path) -> set[str]:
    return {
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"
    }


def test_it_lists_and_deletes_nothing_unbidden(ran: Run, capsys: pytest.CaptureFixture[str]) -> None:
    before = _files(ran.folder.path)
    assert main(["gc", str(ran.folder.path)]) == 0
    said = capsys.readouterr().out
    old = ran.plan()
    for name, what in (("sft", "an artifact"), ("evaluate sft", "an artifact"), ("sft", "a checkpoint at step 12")):
        assert f"{name}: {what}, " in said
    assert f"store/{old.nodes['sft'].key}" in said
    assert said.endswith("; --delete removes them\n")
    assert _files(ran.folder.path) == before


def test_what_the_recipe_names_stays(ran: Run) -> None:
    old, new = ran.plan(), ran.plan(LEARNING_RATE)
    assert len(collect(ran.folder.path, delete=True)) == 3
    assert [path.name for path in ran.folder.store.iterdir()] == [new.nodes["tokenizer"].key]
    work = ran.folder.work(new.nodes["sft"], new)
    assert new.nodes["sft"].stage.unfinished(work, ran.folder.store).keys() == {new.nodes["sft"].key}
    assert ran.folder.keys.read(old.nodes["sft"].key) is None
    assert ran.folder.keys.read(new.nodes["sft"].key) is not None
    assert not os.path.lexists(work / "artifact"), "no link leads nowhere"
    assert collect(ran.folder.path) == []


def test_the_oldest_go_first_until_the_store_is_small_enough(ran: Run) -> None:
    old = ran.plan()
    for age, name in enumerate(("evaluate sft", "sft"), 1):
        os.utime(ran.folder.artifact(old.nodes[name]), (age, age))
    size = sum(path.stat().st_size for path in ran.folder.store.rglob("*") if path.is_file())
    assert [one.stage for one in collect(ran.folder.path, keep=size - 1)] == ["evaluate sft"]
    assert collect(ran.folder.path, keep=size) == []
    assert {one.stage for one in collect(ran.folder.path, keep=0, delete=True)} == {"sft", "evaluate sft"}
    assert ran.folder.artifact(old.nodes["tokenizer"]).exists(), "it is named, whatever its size"


def test_damaged_artifacts_partial_evaluations_and_lost_stages_are_garbage(ran: Run) -> None:
    key = ran.plan().nodes["sft"].key
    for name in (f"store/broken-{key}-1", "store/partial-0123", "stages/07-gone/checkpoints"):
        (ran.folder.path / name).mkdir(parents=True)
    (ran.folder.path / "stages/01-sft/calls-of-an-endpoint.jsonl").touch()
    said = {one.what for one in collect(ran.folder.path, delete=True)}
    assert "a damaged artifact" in said
    assert "samples of an evaluation that has not ended" in said
    assert "all work of a stage that the recipe lacks" in said
    assert not (ran.folder.path / "stages/07-gone").exists()
    assert (ran.folder.path / "stages/01-sft/calls-of-an-endpoint.jsonl").exists()


def test_a_run_that_is_at_work_is_left_alone(ran: Run) -> None:
    with occupied(ran.folder.path, "run"):
        assert "another smallwit is at work there" in refusal(lambda: collect(ran.folder.path, delete=True))


def test_without_a_plan_nothing_is_garbage(ran: Run, tmp_path: Path) -> None:
    (ran.folder.path / "plan.json").unlink()
    assert "run the recipe there again" in refusal(lambda: collect(ran.folder.path, delete=True))
    assert "holds no run" in refusal(lambda: collect(tmp_path / "nowhere"))
    assert not (tmp_path / "nowhere").exists()


def test_a_size_has_a_unit(ran: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gc", str(ran.folder.path), "--keep", "20"]) == 2
    assert "--keep 20: is no size; give a number and a unit, as 20GB" in capsys.readouterr().err
    assert main(["gc", str(ran.folder.path), "--keep", "1.5GB"]) == 0
