"""Averaged weights: what they are, when they stand in the model, and that a resumed run has the same."""

from pathlib import Path

import pytest
import torch

from smallwit.objectives.kinds.cross_entropy import CrossEntropyLoss
from smallwit.training.average import WeightAverage
from smallwit.training.checkpoint import Checkpoints
from smallwit.training.loop import Trainer
from smallwit.training.settings import Optimizer
from test_training import Prepared, demonstrations, make_trainer
from tiny import same_bits, tiny_model, weights


def trainer(steps: int = 6) -> Trainer:
    objectives = [CrossEntropyLoss("cross_entropy", "s", 1.0)]
    spec = Optimizer(lr=0.01, ema=0.9)
    return make_trainer(tiny_model(), {"s": Prepared(demonstrations())}, objectives, optimizer=spec, steps=steps)


def test_average_follows_its_formula() -> None:
    weight = torch.zeros(1)
    average = WeightAverage({"w": weight}, 0.5)
    expected = 0.0
    for step in range(20):
        weight.fill_(step + 1.0)
        average.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * (step + 1)
        assert float(average.tensors["w"]) == pytest.approx(expected, rel=1e-6)


def test_training_goes_on_from_the_last_weights_and_not_from_the_average(tmp_path: Path) -> None:
    plain = make_trainer(
        tiny_model(),
        {"s": Prepared(demonstrations())},
        [CrossEntropyLoss("cross_entropy", "s", 1.0)],
        optimizer=Optimizer(lr=0.01),
        steps=6,
    )
    averaged = trainer()
    for one in (plain, averaged):
        one.run(
            Checkpoints(tmp_path, "k"),
            checkpoint_seconds=1e9,
            on_step=lambda metrics: None,
            validate=lambda: {"validation": 0.0},
            validate_every=2,
        )
    assert same_bits(weights(plain.model), weights(averaged.model))


def test_validation_measures_the_average_and_the_best_of_them_is_handed_over(tmp_path: Path) -> None:
    one = trainer()
    seen = []

    def validate() -> dict[str, float]:
        seen.append(weights(one.model))
        return {"validation": [0.1, 0.9, 0.3][len(seen) - 1]}

    one.run(
        Checkpoints(tmp_path, "k"),
        checkpoint_seconds=1e9,
        on_step=lambda metrics: None,
        validate=validate,
        validate_every=2,
    )
    assert not same_bits(seen[2], weights(one.model))
    one.finish(keep_best=True)
    assert same_bits(seen[1], weights(one.model))


def test_without_selection_the_average_is_handed_over() -> None:
    one = trainer()
    for _ in range(6):
        one.step()
    assert one.average is not None
    one.finish(keep_best=False)
    assert same_bits(one.average.tensors, weights(one.model))


def test_resumed_run_has_the_same_average(tmp_path: Path) -> None:
    whole = trainer()
    for _ in range(6):
        whole.step()
    first = trainer()
    for _ in range(3):
        first.step()
    first.save(Checkpoints(tmp_path, "k"))
    resumed = trainer()
    resumed.resume(Checkpoints(tmp_path, "k"))
    for _ in range(3):
        resumed.step()
    assert whole.average is not None
    assert resumed.average is not None
    assert same_bits(whole.average.tensors, resumed.average.tensors)


def test_resumed_average_stays_on_the_device_of_the_weights(tmp_path: Path) -> None:
    first = trainer()
    first.step()
    first.save(Checkpoints(tmp_path, "k"))
    resumed = trainer()
    assert resumed.average is not None
    places = {name: tensor.data_ptr() for name, tensor in resumed.average.tensors.items()}
    resumed.resume(Checkpoints(tmp_path, "k"))
    # What a checkpoint holds is read to the CPU, so it must be copied to where the average is.
    assert {name: tensor.data_ptr() for name, tensor in resumed.average.tensors.items()} == places
