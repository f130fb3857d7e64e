"""Packed rows: several examples one behind the other, none of which knows of the others."""

import random

import pytest
import torch
from torch import Tensor

from smallwit.objectives.batch import Example, TokenBatch, micro_batches, packed_rows
from smallwit.objectives.head import LogProb, token_statistics
from smallwit.objectives.kinds.cross_entropy import CrossEntropyLoss
from smallwit.training.forward import forward_hidden
from smallwit.training.loop import Trainer, TrainingBudget
from smallwit.training.settings import Optimizer
from smallwit.training.sources import StepBatch
from tiny import random_tokens, relative_error, tiny_model

CPU = torch.device("cpu")
WIDTH = 24


def examples(seed: int = 0, count: int = 9) -> list[Example]:
    dice, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    lengths = [dice.randint(3, 15) for _ in range(count)]
    return [Example(random_tokens(generator, length), 2) for length in lengths]


def losses(rows: list[Example], pack: int | None) -> tuple[Tensor, Tensor, TokenBatch]:
    """-log p of every trained token, its hidden states, and the batch."""
    model = tiny_model(scale=4.0)
    batch = TokenBatch.of(rows, 0, CPU, pack)
    hidden = forward_hidden(model, batch)
    (values,) = token_statistics(hidden, model.get_output_embeddings().weight, [LogProb(batch.labels)])
    return -values, hidden, batch


def gradient_of(rows: list[Example], which: int, pack: int | None) -> dict[str, Tensor]:
    """The gradient of one example's summed loss, laid out together with the others."""
    model = tiny_model(scale=4.0)
    batch = TokenBatch.of(rows, 0, CPU, pack)
    (values,) = token_statistics(
        forward_hidden(model, batch), model.get_output_embeddings().weight, [LogProb(batch.labels)]
    )
    values[batch.sequence == which].sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_rows_hold_every_example_once_and_are_never_overfull() -> None:
    lengths = [random.Random(3).randint(1, WIDTH) for _ in range(40)]
    rows = packed_rows(lengths, WIDTH)
    assert sorted(i for row in rows for i in row) == list(range(40))
    assert all(sum(lengths[i] for i in row) <= WIDTH for row in rows)


def test_packing_wastes_little() -> None:
    dice = random.Random(4)
    lengths = [dice.randint(20, 250) for _ in range(200)]
    assert sum(lengths) / (512 * len(packed_rows(lengths, 512))) > 0.95


def test_an_example_longer_than_a_row_has_a_wider_row_of_its_own() -> None:
    long = Example(list(range(1, 41)), 2)
    batch = TokenBatch.of([long, *examples(count=3)], 0, CPU, WIDTH)
    assert batch.tokens.shape[1] == 40
    assert batch.tokens[0].tolist() == long.tokens


def test_packed_rows_are_fewer_than_examples() -> None:
    rows = examples()
    _, _, batch = losses(rows, WIDTH)
    assert batch.tokens.shape[0] < len(rows)


def test_losses_equal_those_of_unpacked_rows() -> None:
    packed, _, _ = losses(examples(), WIDTH)
    alone, _, _ = losses(examples(), None)
    torch.testing.assert_close(packed, alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("which", range(4))
def test_gradient_of_an_example_does_not_depend_on_its_neighbours(which: int) -> None:
    rows = examples()
    others = [row if i == which else Example([token % 60 + 1 for token in row.tokens], 2) for i, row in enumerate(rows)]
    mine, with_others = gradient_of(rows, which, WIDTH), gradient_of(others, which, WIDTH)
    alone = gradient_of([rows[which]], 0, None)
    for name in alone:
        assert relative_error(with_others[name], mine[name]) < 1e-6
        assert relative_error(mine[name], alone[name]) < 1e-5


@pytest.mark.parametrize("max_tokens", [WIDTH, 3 * WIDTH, 10_000])
def test_micro_batches_are_made_of_whole_rows(max_tokens: int) -> None:
    rows = examples(count=30)
    groups = micro_batches(rows, max_tokens, WIDTH)
    assert sorted(map(id, rows)) == sorted(id(example) for group in groups for example in group)
    for group in groups:
        assert TokenBatch.of(group, 0, CPU, WIDTH).tokens.numel() <= max_tokens


class Fixed:
    def batch(self, step: int) -> StepBatch:
        return StepBatch(examples(count=12))


@pytest.mark.parametrize("pack", [None, WIDTH])
@pytest.mark.parametrize("micro_tokens", [WIDTH, 10_000])
def test_a_step_is_the_same_packed_or_not(pack: int | None, micro_tokens: int) -> None:
    def loss_of(pack: int | None, micro_tokens: int) -> dict[str, float]:
        return Trainer(
            tiny_model(scale=4.0),
            {"demos": Fixed()},
            [CrossEntropyLoss("cross_entropy", "demos", 1.0)],
            teachers={},
            optimizer=Optimizer(),
            budget=TrainingBudget(steps=1),
            vocabulary=64,
            pad=0,
            micro_tokens=micro_tokens,
            pack=pack,
            seed=0,
        ).step()

    expected, metrics = loss_of(None, 100_000), loss_of(pack, micro_tokens)
    assert metrics["loss"] == pytest.approx(expected["loss"], rel=1e-6)
    assert metrics["grad_norm"] == pytest.approx(expected["grad_norm"], rel=1e-5)
