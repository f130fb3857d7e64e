"""Where the time of a step went, and its memory, in the metrics of a step."""

from pathlib import Path

import pytest

from smallwit.training.checkpoint import Checkpoints
from smallwit.training.loop import TrainingBudget
from test_average import trainer as sft_trainer
from test_checkpoints import joint_trainer


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, float]]:
    """Two steps of SFT, KD and RL, validated and saved each."""
    trainer, rows = joint_trainer(), list[dict[str, float]]()
    trainer.budget = TrainingBudget(steps=2)
    trainer.run(
        Checkpoints(tmp_path_factory.mktemp("checkpoints"), "key"),
        checkpoint_seconds=1e-9,
        on_step=rows.append,
        validate=lambda: {"validation": 0.5},
        validate_every=1,
    )
    return rows


def test_the_parts_of_a_step_are_timed_and_no_longer_than_the_step(steps: list[dict[str, float]]) -> None:
    for row in steps:
        parts = ["rollout", "grade", "data", "update", "validate"]
        times = [row[f"time/{part}"] for part in parts]
        assert all(seconds > 0 for seconds in times)
        assert 0.5 * row["time/step"] < sum(times) <= row["time/step"]
    assert steps[1]["seconds"] == pytest.approx(sum(row["time/step"] for row in steps))


def test_waiting_for_a_checkpoint_counts_in_the_step_after_it(steps: list[dict[str, float]]) -> None:
    assert "time/write" not in steps[0]
    assert steps[1]["time/write"] > 0


def test_tokens_a_second_are_those_trained_on_without_validation(steps: list[dict[str, float]]) -> None:
    first, second = steps
    seconds = second["time/step"] - second["time/validate"]
    assert second["tokens_per_second"] == pytest.approx((second["tokens"] - first["tokens"]) / seconds, rel=0.2)


def test_memory_is_that_of_the_process(steps: list[dict[str, float]]) -> None:
    for row in steps:
        assert 0.05 < row["memory_gb"] <= row["peak_memory_gb"] * 1.05
        assert "peak_gpu_memory_gb" not in row


def test_a_step_without_rollouts_has_no_time_for_them(tmp_path: Path) -> None:
    rows: list[dict[str, float]] = []
    sft_trainer(steps=1).run(Checkpoints(tmp_path, "key"), on_step=rows.append)
    assert {name for name in rows[0] if name.startswith("time/")} == {"time/data", "time/update", "time/step"}
