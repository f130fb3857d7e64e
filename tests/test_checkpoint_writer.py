"""When checkpoints are saved, and that they are whole when training goes on while they are written."""

import errno
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from smallwit import device
from smallwit.training import checkpoint_writer
from smallwit.training.checkpoint import Checkpoints
from smallwit.training.checkpoint_writer import CheckpointWriter
from smallwit.training.loop import Trainer
from test_average import trainer
from tiny import same_bits


class Slow(Checkpoints):
    """Begins to write when it is told to."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "key")
        self.go = threading.Event()
        folder.mkdir()

    def save(self, *arguments: Any) -> None:
        assert self.go.wait(20)
        super().save(*arguments)


class Full(Checkpoints):
    def save(self, *arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


def run(one: Trainer, checkpoints: Checkpoints, *, seconds: float | None = 1e9) -> list[float]:
    """Train, and save the first step beside the others. Return the steps that were logged."""
    steps: list[float] = []

    def on_step(metrics: dict[str, float]) -> None:
        with checkpoints.log.open("ab") as log:
            log.write(b"%d\n" % metrics["step"])
        steps.append(metrics["step"])
        if metrics["step"] == 1 and isinstance(checkpoints, Slow):
            one.save(checkpoints, beside=True)
        if metrics["step"] == 4 and isinstance(checkpoints, Slow):
            checkpoints.go.set()

    one.run(checkpoints, checkpoint_seconds=seconds, on_step=on_step)
    return steps


def moments(tensors: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {str(place): state["exp_avg"] for place, state in tensors["optimizers"][0]["state"].items()}


def test_a_checkpoint_that_is_written_later_has_the_weights_and_the_log_of_its_step(tmp_path: Path) -> None:
    later, stopped = trainer(), trainer()
    assert run(later, Slow(tmp_path / "later")) == [1, 2, 3, 4, 5, 6]
    stopped.step()
    stopped.save(Checkpoints(tmp_path / "stopped", "key"))
    written = Checkpoints(tmp_path / "later", "key")
    found, expected = written.load(), Checkpoints(tmp_path / "stopped", "key").load()
    assert found is not None
    assert expected is not None
    assert written.logged == b"1\n"
    assert found[1]["step"] == expected[1]["step"] == 1
    assert same_bits(found[0]["model"], expected[0]["model"])
    assert same_bits(found[0]["average"], expected[0]["average"])
    moments = [
        {f"{n}": s["exp_avg"] for n, s in each[0]["optimizers"][0]["state"].items()} for each in (found, expected)
    ]
    assert same_bits(*moments)


def test_a_full_disk_stops_training_at_the_next_save(tmp_path: Path) -> None:
    one = trainer()
    with pytest.raises(OSError, match="No space left"):
        run(one, Full(tmp_path, "key"), seconds=1e-9)
    assert one.progress.step == 2


def test_a_disk_that_fills_with_the_last_save_is_an_error_too(tmp_path: Path) -> None:
    one = trainer(steps=2)
    with pytest.raises(OSError, match="No space left"):
        run(one, Full(tmp_path, "key"), seconds=1e-9)


def test_without_room_for_two_copies_training_waits_and_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    writer, checkpoints = CheckpointWriter(said.append), Checkpoints(tmp_path, "key")
    tensors = {"model": {"w": torch.zeros(1000)}, "optimizers": [{"state": [torch.zeros(250)]}]}
    monkeypatch.setattr(checkpoint_writer, "available_memory", lambda: 2 * 5000 - 1)
    for step in (1, 2):
        writer.save(checkpoints, step, tensors, {}, {}, beside=True)
        assert (tmp_path / f"step_{step:08d}").exists()
    assert len(said) == 1
    assert writer.take_waited()["write"] > 0
    assert writer.take_waited() == {}


def test_available_memory_is_no_more_than_the_limit_of_the_control_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in {"max": "900", "current": "500", "stat": "anon 300\ninactive_file 100"}.items():
        (tmp_path / f"memory.{name}").write_text(text)
    monkeypatch.setattr(device, "_GROUPS", ((tmp_path, "memory.max", "memory.current", "inactive_file"),))
    assert device.available_memory() == 500
    (tmp_path / "memory.max").write_text("max\n")
    assert device.available_memory() > 1e6


@pytest.mark.parametrize(
    ("cost", "interval"), [(0.01, 10.0), (3.0, 100.0), (60.0, 600.0)], ids=["cheap", "costly", "slower than can be"]
)
def test_saving_takes_three_percent_of_the_time_within_bounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cost: float, interval: float
) -> None:
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(checkpoint_writer, "time", SimpleNamespace(monotonic=lambda: clock.now))

    class Costly(Checkpoints):
        def save(self, *arguments: Any) -> None:
            clock.now += cost

    writer = CheckpointWriter()
    clock.now += 9.9
    assert not writer.due(None), "the first comes after ten seconds"
    clock.now += 0.2
    assert writer.due(None)
    writer.save(Costly(tmp_path, "key"), 1, {}, {}, {}, beside=False)
    clock.now += interval - 0.1
    assert not writer.due(None)
    clock.now += 0.2
    assert writer.due(None)


def test_a_recipe_may_say_how_often() -> None:
    writer = CheckpointWriter()
    assert not writer.due(1000.0)
    assert writer.due(1e-9)
