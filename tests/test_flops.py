"""FLOPs of training, held against torch's own counter of what is computed."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel

from smallwit.models.build import new_model
from smallwit.models.flops import Cost
from smallwit.training.lora import add_adapters
from smallwit.training.settings import LoRA
from tiny import tokenizer

TOKENS = 128


def model() -> PreTrainedModel:
    words = tokenizer()
    made = new_model(
        hidden=64,
        layers=6,
        heads=4,
        kv_heads=2,
        intermediate=256,
        max_length=TOKENS,
        vocabulary_rows=len(words),
        tokenizer=words,
        seed=0,
    )
    made.set_attn_implementation("eager")
    return made.train()


def computed(model: PreTrainedModel) -> float:
    """FLOPs of one forward and backward pass of transformers' own code, every token projected."""
    tokens = torch.arange(TOKENS)[None]
    with FlopCounterMode(display=False) as counter:
        model(input_ids=tokens, labels=tokens).loss.backward()
    return float(counter.get_total_flops())


def counted(model: PreTrainedModel) -> float:
    """The same by `Cost`. Eager attention computes what is masked, too: the half of the square that `Cost` leaves out
    because kernels do."""
    cost = Cost.of(model)
    masked = TOKENS * TOKENS - TOKENS * (TOKENS + 1) / 2
    return cost.train([TOKENS], projected=TOKENS) + 3 * cost.attention * masked


def test_full_fine_tuning_costs_what_torch_counts() -> None:
    whole = model()
    assert counted(whole) == pytest.approx(computed(whole), rel=0.03)


def test_adapters_cost_what_torch_counts_and_less_than_full_fine_tuning() -> None:
    pytest.importorskip("peft", reason="peft is not installed: pip install 'smallwit[lora]'")
    whole, adapted = model(), model()
    add_adapters(adapted, LoRA(rank=4, alpha=8), seed=0)
    assert counted(adapted) == pytest.approx(computed(adapted), rel=0.03)
    assert counted(adapted) < 0.85 * counted(whole)


def test_a_frozen_teacher_costs_one_forward_pass_as_before() -> None:
    trained, frozen = model(), model().requires_grad_(False)
    assert Cost.of(frozen).forward([7], 3) == Cost.of(trained).forward([7], 3)
