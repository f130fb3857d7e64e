"""From examples to tensors: the same tokens are trained on, however they are padded, grouped and ordered."""

import itertools
import random

import pytest
import torch
from torch import Tensor

from smallwit.models.build import backbone
from smallwit.objectives.batch import Example, TokenBatch, micro_batches
from tiny import random_tokens, relative_error, tiny_model

CPU = torch.device("cpu")
PAD = 0


def ragged_examples(seed: int, count: int = 7) -> list[Example]:
    """Rollouts of different lengths, some with one token of context, the longest not first."""
    dice, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    examples = []
    for _ in range(count):
        prompt, completion = dice.randint(1, 6), dice.randint(1, 9)
        log_probs = [-dice.random() for _ in range(completion)]
        tokens = random_tokens(generator, prompt + completion)
        examples.append(Example(tokens, prompt, log_probs, dice.uniform(-1, 1)))
    return examples


def plain_loop(examples: list[Example]) -> list[tuple[int, int, int, float]]:
    """(row, place of the state that predicts, label, log-prob) of every trained token, in order."""
    found = []
    for row, example in enumerate(examples):
        for place in range(len(example.tokens)):
            if place >= example.prompt_length and place > 0:
                sampled = example.log_probs[place - example.prompt_length] if example.log_probs else 0.0
                found.append((row, place - 1, example.tokens[place], sampled))
    return found


@pytest.mark.parametrize("seed", range(5))
def test_positions_labels_and_log_probs_equal_a_plain_loop(seed: int) -> None:
    examples = ragged_examples(seed)
    batch = TokenBatch.of(examples, PAD, CPU)
    expected = plain_loop(examples)
    width = batch.tokens.shape[1]
    assert batch.positions.tolist() == [row * width + place for row, place, _, _ in expected]
    assert batch.labels.tolist() == [label for _, _, label, _ in expected]
    assert batch.sequence.tolist() == [row for row, _, _, _ in expected]
    assert batch.log_probs is not None
    assert batch.log_probs.tolist() == pytest.approx([sampled for _, _, _, sampled in expected])


@pytest.mark.parametrize("seed", range(5))
def test_counts_and_advantages_belong_to_their_rows(seed: int) -> None:
    examples = ragged_examples(seed)
    batch = TokenBatch.of(examples, PAD, CPU)
    assert batch.lengths == [len(example.tokens) for example in examples]
    assert batch.sequence_targets.tolist() == [example.targets for example in examples]
    assert batch.sequence_targets.tolist() == torch.bincount(batch.sequence).tolist()
    assert batch.advantages.tolist() == pytest.approx([example.advantage for example in examples])


def test_tokens_are_padded_on_the_right() -> None:
    batch = TokenBatch.of([Example([5, 6, 7], 1), Example([8], 0), Example([9, 10], 1)], PAD, CPU)
    assert batch.tokens.tolist() == [[5, 6, 7], [8, PAD, PAD], [9, 10, PAD]]


def test_without_context_all_tokens_but_the_first_are_trained_on() -> None:
    batch = TokenBatch.of([Example([5, 6, 7], 0)], PAD, CPU)
    assert batch.labels.tolist() == [6, 7]
    assert batch.positions.tolist() == [0, 1]


def test_demonstrations_have_no_log_probs() -> None:
    assert TokenBatch.of([Example([5, 6], 1)], PAD, CPU).log_probs is None


def test_an_end_token_that_is_also_the_padding_is_trained_on_once_a_row() -> None:
    batch = TokenBatch.of([Example([5, 6, PAD], 1), Example([7, PAD], 1)], PAD, CPU)
    assert batch.labels.tolist() == [6, PAD, PAD]
    assert batch.sequence.tolist() == [0, 0, 1]


def padded_cost(group: list[Example]) -> int:
    return len(group) * max(len(example.tokens) for example in group)


@pytest.mark.parametrize("budget", [1, 12, 30, 45, 10_000])
@pytest.mark.parametrize("seed", range(5))
def test_micro_batches_hold_every_example_once_within_the_budget(seed: int, budget: int) -> None:
    examples = ragged_examples(seed, count=20)
    groups = micro_batches(examples, budget)
    assert sorted(map(id, examples)) == sorted(id(example) for group in groups for example in group)
    assert all(len(group) == 1 or padded_cost(group) <= budget for group in groups)


def test_micro_batches_put_like_lengths_together_longest_first() -> None:
    groups = micro_batches(ragged_examples(3, count=20), 30)
    lengths = [len(example.tokens) for group in groups for example in group]
    assert lengths == sorted(lengths, reverse=True)


def test_micro_batches_are_as_few_as_this_order_allows() -> None:
    groups = micro_batches(ragged_examples(3, count=20), 30)
    for group, following in itertools.pairwise(groups):
        assert padded_cost([*group, following[0]]) > 30


def test_micro_batches_of_nothing_are_none() -> None:
    assert micro_batches([], 100) == []


def used_states(examples: list[Example], pad: int = PAD) -> Tensor:
    """The hidden states `[N, H]` that predict the trained tokens, in double precision."""
    model = tiny_model(scale=4.0).double()
    batch = TokenBatch.of(examples, pad, CPU)
    with torch.no_grad():
        hidden = backbone(model)(input_ids=batch.tokens, use_cache=False).last_hidden_state
    return hidden.flatten(0, 1)[batch.positions]


def test_padding_changes_no_state_that_is_used() -> None:
    examples = ragged_examples(0)
    together = used_states(examples)
    alone = torch.cat([used_states([example]) for example in examples])
    torch.testing.assert_close(together, alone, rtol=1e-10, atol=1e-12)


def test_value_of_the_padding_token_does_not_matter() -> None:
    examples = ragged_examples(0)
    assert torch.equal(used_states(examples, pad=PAD), used_states(examples, pad=17))


def gradient_of_first(examples: list[Example]) -> Tensor:
    """The gradient of the first example's cross-entropy when it is computed in a batch with the others."""
    model = tiny_model(scale=4.0)
    batch = TokenBatch.of(examples, PAD, CPU)
    logits = model(input_ids=batch.tokens).logits.flatten(0, 1)[batch.positions]
    losses = torch.nn.functional.cross_entropy(logits, batch.labels, reduction="none")
    losses[batch.sequence == 0].sum().backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def test_gradient_of_an_example_does_not_depend_on_its_neighbours() -> None:
    first, *neighbours = ragged_examples(1)
    alone = gradient_of_first([first])
    assert relative_error(gradient_of_first([first, *neighbours[:1]]), alone) < 1e-5
    assert relative_error(gradient_of_first([first, *neighbours]), alone) < 1e-5
