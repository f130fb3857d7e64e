"""Rows of unlike lengths go through a model in several passes, so that little of it is padding."""

import random

import torch

from smallwit.objectives.batch import PASS_TOKENS, Example, TokenBatch, rectangles
from smallwit.training.forward import forward_hidden
from tiny import random_tokens, relative_error, tiny_model

CPU = torch.device("cpu")
LENGTHS = [230, 225, *[40] * 6, 12]


def padded(lengths: list[int], rows: list[slice]) -> int:
    """Tokens with their padding."""
    return sum(max(lengths[part]) * len(lengths[part]) for part in rows)


def examples() -> list[Example]:
    generator = torch.Generator().manual_seed(0)
    return [Example(random_tokens(generator, length), 2) for length in LENGTHS]


def test_every_row_is_in_one_pass_and_in_its_order() -> None:
    dice = random.Random(0)
    for count in (1, 2, 7, 60):
        lengths = [dice.randint(1, 400) for _ in range(count)]
        assert [i for part in rectangles(lengths) for i in range(count)[part]] == list(range(count))


def test_a_pass_is_added_where_it_saves_enough_padding() -> None:
    assert rectangles(LENGTHS) == [slice(0, 2), slice(2, 9)]


def test_a_pass_is_not_added_for_a_few_tokens() -> None:
    longest = 100 + PASS_TOKENS // 4
    assert len(rectangles([longest, *[101] * 4])) == 1
    assert len(rectangles([longest, *[99] * 4])) == 2


def test_each_pass_saves_what_it_costs() -> None:
    dice = random.Random(1)
    lengths = sorted((dice.randint(10, 1000) for _ in range(50)), reverse=True)
    rows = rectangles(lengths)
    assert padded(lengths, [slice(0, 50)]) - padded(lengths, rows) >= PASS_TOKENS * (len(rows) - 1) > 0


def test_hidden_states_are_those_of_each_row_alone() -> None:
    model, rows = tiny_model(scale=4.0), examples()
    together = forward_hidden(model, TokenBatch.of(rows, 0, CPU))
    alone = torch.cat([forward_hidden(model, TokenBatch.of([row], 0, CPU)) for row in rows])
    torch.testing.assert_close(together, alone)


def test_the_gradient_is_the_sum_of_the_rows() -> None:
    def gradient(batches: list[list[Example]]) -> torch.Tensor:
        model = tiny_model(scale=4.0)
        for batch in batches:
            forward_hidden(model, TokenBatch.of(batch, 0, CPU)).square().sum().backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    rows = examples()
    assert relative_error(gradient([rows]), gradient([[row] for row in rows])) < 1e-5
