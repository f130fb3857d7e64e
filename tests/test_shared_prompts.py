"""Prompts that several examples share are computed once, and change no loss and no gradient."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from smallwit.models.head import output_head
from smallwit.objectives import batch
from smallwit.objectives.batch import CALL_FLOPS, Example, TokenBatch, micro_batches, prompts_worth_sharing
from smallwit.objectives.head import LogProb, token_statistics
from smallwit.training import forward
from smallwit.training.forward import forward_hidden, token_batches
from tiny import random_tokens, relative_error, tiny_model

CPU = torch.device("cpu")
ENOUGH = 10_000


def rollouts(*completions: int, prompt: int = 12, seed: int = 0) -> list[Example]:
    """Completions of these lengths behind one prompt."""
    generator = torch.Generator().manual_seed(seed)
    tokens = random_tokens(generator, prompt)
    return [Example(tokens + random_tokens(generator, length), prompt) for length in completions]


def mixed() -> list[Example]:
    """Two groups whose members do not stand together, one without siblings, one of several turns."""
    first, second = rollouts(5, 1, 9), rollouts(4, 4, seed=1)
    turns = replace(rollouts(8, seed=2)[0], trained=((2, 4), (7, 12)))
    return [first[0], second[0], first[1], rollouts(6, seed=3)[0], second[1], turns, first[2]]


def losses_and_gradients(examples: list[Example], *, share_prompts: bool) -> tuple[Tensor, dict[str, Tensor]]:
    """-log p of every trained token, and the gradient of their weighted sum."""
    model = tiny_model(scale=4.0)
    rows = TokenBatch.of(examples, 0, CPU, share_prompts=share_prompts)
    values = -token_statistics(forward_hidden(model, rows), output_head(model).weight, [LogProb(rows.labels)])[0]
    (values * torch.linspace(-1, 1, len(values))).sum().backward()
    return values.detach(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def test_losses_and_gradients_are_those_of_whole_rows() -> None:
    shared, ours = losses_and_gradients(mixed(), share_prompts=True)
    alone, theirs = losses_and_gradients(mixed(), share_prompts=False)
    torch.testing.assert_close(shared, alone, rtol=1e-5, atol=1e-5)
    assert max(relative_error(ours[name], theirs[name]) for name in theirs) < 1e-5


def test_a_prompt_stands_once_in_the_row() -> None:
    rows = TokenBatch.of(rollouts(5, 1, 9), 0, CPU, share_prompts=True)
    assert rows.tokens.shape == (1, 12 + 5 + 1 + 9)


def test_completions_begin_at_the_position_behind_their_prompt() -> None:
    rows = TokenBatch.of(rollouts(2, 3), 0, CPU, share_prompts=True)
    assert rows.position_ids is not None
    assert rows.position_ids[0, 12:].tolist() == [12, 13, 12, 13, 14]


@pytest.mark.parametrize("max_tokens", [1, 20, 30, ENOUGH])
def test_every_example_is_in_one_batch_that_has_room_for_it(max_tokens: int) -> None:
    examples = mixed()
    groups = micro_batches(examples, max_tokens, share_prompts=True)
    assert sorted(map(id, examples)) == sorted(id(example) for group in groups for example in group)
    sizes = [TokenBatch.of(group, 0, CPU, share_prompts=True).tokens.numel() for group in groups]
    assert all(size <= max_tokens for size, group in zip(sizes, groups, strict=True) if len(group) > 1)


def test_siblings_are_in_one_batch_where_they_fit() -> None:
    groups = micro_batches(mixed(), 40, share_prompts=True)
    assert [example.shareable_prompt for example in groups[0]] == [mixed()[0].shareable_prompt] * 3


@pytest.mark.parametrize(
    ("prompt", "gain", "worth"), [(12, CALL_FLOPS, True), (1, CALL_FLOPS, False), (12, CALL_FLOPS / 100, False)]
)
def test_prompts_are_shared_where_their_tokens_cost_more_than_the_calls(prompt: int, gain: float, worth: bool) -> None:
    assert prompts_worth_sharing(rollouts(20, 20, prompt=prompt), gain) is worth


def rows_given(models: list[PreTrainedModel]) -> int:
    (rows,) = token_batches(models, rollouts(3, 3), pad=0, max_tokens=ENOUGH)
    return len(rows.tokens)


def test_a_model_is_given_shared_prompts_if_that_saves_time(monkeypatch: pytest.MonkeyPatch) -> None:
    assert rows_given([tiny_model()]) == 2
    monkeypatch.setattr(batch, "CALL_FLOPS", 1.0)
    assert rows_given([tiny_model()]) == 1


def test_a_teacher_with_a_state_is_given_whole_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "CALL_FLOPS", 1.0)
    student, teacher = tiny_model(), tiny_model()
    monkeypatch.setattr(forward, "is_stateful", lambda model: model is teacher)
    assert rows_given([student, teacher]) == 2
