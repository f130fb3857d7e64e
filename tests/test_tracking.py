"""Experiment trackers: what they get, each step once, and nothing for another machine."""

import math
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import pipeline_recipes as micro
from smallwit.cli import main
from smallwit.errors import UserError
from smallwit.stages.job import Reporter
from smallwit.stages.train.metrics_log import MetricsLog
from smallwit.storage.append_log import AppendLog
from smallwit.training.tracking import Tracker, check_trackers, scalars, trackers_by_name
from test_checkpoints import joint_trainer

INSTALL = "is not installed: pip install 'smallwit[{}]'"
SFT = (
    micro.HEAD
    + """\
stages:
  - name: sft
    kind: train
    from: small
    sources: {demos: {kind: demonstrations, batch: 4}}
    objectives: [{kind: cross_entropy, source: demos}]
    steps: 2
"""
)
REPORTER = Reporter(progress=lambda share, text: None, say=lambda text: None, stopping=lambda: False)


def track(tracker: Tracker, folder: Path, steps: range, saved: bytes | None = None) -> None:
    """Log steps to a tracker, after those of the log of a checkpoint."""
    with tracker, AppendLog(folder / "log.jsonl") as lines:
        log = MetricsLog(lines, joint_trainer(), REPORTER, [tracker])
        log.rewind(steps[0] - 1, saved)
        for step in steps:
            log.write({"step": step, "loss": 1.0 / step, "lr": 0.5, "grad_norm": math.nan})


def tracked_twice(name: str, run_dir: Path) -> None:
    """Steps 1 to 4, killed there; steps 3 to 5 from a checkpoint at step 2."""
    folder = run_dir / "stages" / "00-sft"
    folder.mkdir(parents=True)
    make = trackers_by_name()[name]
    track(make(run_dir, "sft", "key"), folder, range(1, 5))
    saved = b"".join((folder / "log.jsonl").read_bytes().splitlines(keepends=True)[:2])
    track(make(run_dir, "sft", "key"), folder, range(3, 6), saved)


def test_metrics_have_trls_names_where_they_mean_the_same() -> None:
    row = {"step": 3, "loss": 2.0, "lr": 0.1, "truncated": 0.5, "reward_part/length": 0.25, "tokens": 7, "kl": None}
    assert scalars(row) == {
        "loss": 2.0,
        "learning_rate": 0.1,
        "completions/clipped_ratio": 0.5,
        "rewards/length/mean": 0.25,
        "tokens": 7,
    }


def shown_by_tensorboard(folder: Path) -> list[tuple[str, int, float]]:
    """Name, step and value of the events that TensorBoard shows: a session that starts at a step takes back the events
    from there on. Records have their length, a checksum, the event, a checksum."""
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    shown: list[tuple[str, int, float]] = []
    for file in sorted(folder.iterdir()):
        content, place = file.read_bytes(), 0
        while place < len(content):
            (length,) = struct.unpack_from("<Q", content, place)
            event = Event.FromString(content[place + 12 : place + 12 + length])
            place += length + 16
            if event.session_log.status == SessionLog.START:
                shown = [each for each in shown if each[1] < event.step]
            shown += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
    return shown


def test_tensorboard_shows_each_step_once_though_some_were_taken_again(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX", reason="tensorboardX " + INSTALL.format("tensorboard"))
    tracked_twice("tensorboard", tmp_path)
    shown = shown_by_tensorboard(tmp_path / "tensorboard" / "sft")
    assert {name for name, _, _ in shown} == {"learning_rate", "loss"}, "a norm that is no number is left out"
    losses = [(step, round(value, 4)) for name, step, value in shown if name == "loss"]
    assert losses == [(n, round(1 / n, 4)) for n in range(1, 6)]


@pytest.fixture
def trackio_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Trackio's rows of a run, in a database below the folder, on a machine with a token of the hub and no network."""
    storage = pytest.importorskip("trackio.sqlite_storage", reason="trackio " + INSTALL.format("trackio"))

    def refuse(*arguments: Any) -> None:
        raise AssertionError(f"another machine was asked: {arguments[1:]}")

    monkeypatch.setattr(storage, "TRACKIO_DIR", tmp_path / "trackio")
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setenv("HF_TOKEN", "hf_token")
    monkeypatch.setenv("TRACKIO_SPACE_ID", "somebody/space")
    return storage.SQLiteStorage.get_logs


def test_trackio_has_each_step_once_and_asks_no_other_machine(tmp_path: Path, trackio_rows: Any) -> None:
    tracked_twice("trackio", tmp_path / "run")
    rows = trackio_rows("run", "sft")
    assert [(row["step"], row["loss"]) for row in rows] == [(n, float(f"{1 / n:.6g}")) for n in range(1, 6)]
    assert {row["learning_rate"] for row in rows} == {0.5}


@pytest.mark.parametrize(("name", "package"), [("tensorboard", "tensorboardX"), ("trackio", "trackio")])
def test_a_tracker_that_is_not_installed_is_refused_with_the_command(
    name: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smallwit.training.tracking.find_spec", lambda package: None)
    with pytest.raises(UserError) as caught:
        check_trackers([name])
    assert str(caught.value) == f"--track {name}: {package} {INSTALL.format(name)}"


def test_an_unknown_tracker_is_refused_before_anything_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = micro.write(tmp_path, SFT)
    assert main(["run", str(recipe), "--run-dir", str(tmp_path / "run"), "--track", "tensorbord"]) == 2
    assert "--track tensorbord: there is no such tracker; did you mean 'tensorboard'?" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_run_is_tracked_stage_by_stage(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX", reason="tensorboardX " + INSTALL.format("tensorboard"))
    recipe, run_dir = micro.write(tmp_path, SFT), tmp_path / "run"
    assert main(["run", str(recipe), "--run-dir", str(run_dir), "--track", "tensorboard"]) == 0
    assert [path.name for path in (run_dir / "tensorboard").iterdir()] == ["sft"]
    assert list((run_dir / "tensorboard" / "sft").glob("events.*"))
