"""The body of a model over a batch, and the gradient of a table that is looked up and is the head too."""

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import PreTrainedModel

from smallwit.models import cpu_memory
from smallwit.models.build import backbone
from smallwit.models.cpu_memory import return_freed_memory, trim_between_layers
from smallwit.models.head import output_head
from smallwit.objectives.batch import Example, TokenBatch
from smallwit.objectives.head import LogProb, chunked_loss
from smallwit.training.forward import forward_hidden
from tiny import random_tokens, relative_error, same_bits, tiny_model

BATCH = TokenBatch.of(
    [Example(random_tokens(torch.Generator().manual_seed(i), 9 + i), 3) for i in range(3)], 0, torch.device("cpu")
)


def gradients(model: PreTrainedModel, hidden: Tensor) -> dict[str, Tensor]:
    loss, _ = chunked_loss(
        hidden, output_head(model).weight, [LogProb(BATCH.labels)], lambda values, tokens: -values[0].sum()
    )
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def plain_hidden(model: PreTrainedModel) -> Tensor:
    states = backbone(model)(input_ids=BATCH.tokens, use_cache=False).last_hidden_state
    return states.flatten(0, 1)[BATCH.positions]


def test_a_tied_table_gets_the_gradient_of_both_its_uses() -> None:
    one, other = tiny_model(scale=4.0), tiny_model(scale=4.0)
    ours, expected = gradients(one, forward_hidden(one, BATCH)), gradients(other, plain_hidden(other))
    assert ours.keys() == expected.keys()
    for name in expected:
        assert relative_error(ours[name], expected[name]) < 1e-5


def test_gradients_of_two_passes_add_up() -> None:
    model = tiny_model(scale=4.0)
    once = gradients(model, forward_hidden(model, BATCH))
    twice = gradients(model, forward_hidden(model, BATCH))
    for name in once:
        assert relative_error(twice[name], 2 * once[name]) < 1e-5


def test_a_frozen_table_gets_none() -> None:
    model = tiny_model(scale=4.0)
    output_head(model).weight.requires_grad_(False)
    assert "model.embed_tokens.weight" not in gradients(model, forward_hidden(model, BATCH))


def test_hidden_states_are_those_of_the_plain_model() -> None:
    model = tiny_model(scale=4.0)
    assert torch.equal(forward_hidden(model, BATCH), plain_hidden(model))


class Tables(TorchDispatchMode):
    """Counts the tensors of a shape that are filled with zeros."""

    def __init__(self, shape: torch.Size) -> None:
        super().__init__()
        self.shape, self.made = shape, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        made = func(*args, **(kwargs or {}))
        zeros = any(word in str(func) for word in ("zeros", "new_zeros", "embedding_dense_backward"))
        self.made += zeros and isinstance(made, Tensor) and made.shape == self.shape
        return made


def test_the_lookup_makes_no_table_beside_the_head_s_gradient() -> None:
    model = tiny_model(scale=4.0)
    with Tables(output_head(model).weight.shape) as tables:
        gradients(model, forward_hidden(model, BATCH))
    assert tables.made == 1, "the head's own"


@pytest.fixture
def returns(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """An entry for each time that memory was given back."""
    seen: list[int] = []

    def give_back() -> None:
        seen.append(len(seen))
        return_freed_memory()

    monkeypatch.setattr(cpu_memory, "return_freed_memory", give_back)
    return seen


def test_giving_memory_back_changes_no_gradient(monkeypatch: pytest.MonkeyPatch, returns: list[int]) -> None:
    monkeypatch.setattr(cpu_memory, "LARGE_MODEL", 0)
    keeping, giving = tiny_model().train(), tiny_model().train()
    trim_between_layers(giving)
    expected = gradients(keeping, forward_hidden(keeping, BATCH))
    assert not returns
    assert same_bits(gradients(giving, forward_hidden(giving, BATCH)), expected)
    assert len(returns) > 1, "before the forward pass, and in the backward pass"


def test_a_small_model_keeps_its_memory(returns: list[int]) -> None:
    model = tiny_model().train()
    trim_between_layers(model)
    gradients(model, forward_hidden(model, BATCH))
    assert not returns
