"""The gated layers' own forward and backward pass."""

import copy
import platform
import subprocess
import sys

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

from smallwit.models.cpu_memory import recompute_swiglu

SHAPE = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 40,
}
TOKENS = torch.arange(24).reshape(2, 12)


def model_of(family: str, act: str = "silu") -> PreTrainedModel:
    torch.manual_seed(0)
    if family == "llama":
        return LlamaForCausalLM(LlamaConfig(**SHAPE, hidden_act=act))
    return Qwen2ForCausalLM(Qwen2Config(**SHAPE, hidden_act=act))


def logits_and_gradients(model: PreTrainedModel) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    model.zero_grad()
    logits = model(TOKENS).logits
    logits.square().mean().backward()
    return logits.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def kept_bytes(model: PreTrainedModel) -> int:
    """What the backward pass needs."""
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        logits = model(TOKENS).logits
    total = sum(kept.values())
    del logits
    return total


@pytest.mark.parametrize("family", ["qwen2", "llama"])
def test_outputs_and_gradients_are_the_same_bits(family: str) -> None:
    plain, lean = model_of(family), model_of(family)
    recompute_swiglu(lean)
    (logits, gradients), (same, others) = logits_and_gradients(plain), logits_and_gradients(lean)
    assert torch.equal(logits, same)
    assert gradients.keys() == others.keys()
    assert all(torch.equal(gradients[name], others[name]) for name in gradients)


def test_a_layer_keeps_two_activations_less() -> None:
    plain, lean = model_of("qwen2"), model_of("qwen2")
    recompute_swiglu(lean)
    one = TOKENS.numel() * SHAPE["intermediate_size"] * 4
    assert kept_bytes(plain) - kept_bytes(lean) == SHAPE["num_hidden_layers"] * 2 * one


@pytest.mark.parametrize("frozen", ["down_proj", "gate_proj", "up_proj"])
def test_a_frozen_projection_gets_no_gradient_and_the_others_the_same(frozen: str) -> None:
    plain, lean = model_of("qwen2"), model_of("qwen2")
    recompute_swiglu(lean)
    for model in (plain, lean):
        model.get_parameter(f"model.layers.0.mlp.{frozen}.weight").requires_grad_(False)
    (_, gradients), (_, others) = logits_and_gradients(plain), logits_and_gradients(lean)
    assert gradients.keys() == others.keys()
    assert all(torch.equal(gradients[name], others[name]) for name in gradients)


def test_a_projection_of_another_kind_is_called() -> None:
    plain, lean = model_of("qwen2"), model_of("qwen2")
    recompute_swiglu(lean)
    for model in (plain, lean):
        mlp = model.get_submodule("model.layers.0.mlp")
        mlp.down_proj = torch.nn.Sequential(mlp.down_proj, torch.nn.Tanh())
    (logits, gradients), (same, others) = logits_and_gradients(plain), logits_and_gradients(lean)
    assert torch.equal(logits, same)
    assert all(torch.equal(gradients[name], others[name]) for name in gradients)


def test_another_activation_stays_as_it_is() -> None:
    plain, other = model_of("qwen2", "gelu"), model_of("qwen2", "gelu")
    recompute_swiglu(other)
    assert torch.equal(plain(TOKENS).logits, other(TOKENS).logits)


def test_a_copy_computes_with_its_own_weights() -> None:
    model = model_of("qwen2")
    recompute_swiglu(model)
    twin = copy.deepcopy(model)
    before = model(TOKENS).logits
    with torch.no_grad():
        model.get_parameter("model.layers.0.mlp.up_proj.weight").zero_()
    assert torch.equal(twin(TOKENS).logits, before)


def test_under_autocast_it_is_the_same_too() -> None:
    plain, lean = model_of("qwen2"), model_of("qwen2")
    recompute_swiglu(lean)
    with torch.autocast("cpu", torch.bfloat16):
        (logits, gradients), (same, others) = logits_and_gradients(plain), logits_and_gradients(lean)
    assert torch.equal(logits, same)
    assert all(torch.equal(gradients[name], others[name]) for name in gradients)


def resident_after_freeing(call: str, later: str = "") -> float:
    """Return the share of 200 MB that a process still has in memory after it was freed, having made these calls."""
    code = f"""
import psutil, torch
from smallwit.models.cpu_memory import keep_freed_memory, return_freed_memory_if_scarce
from smallwit.models import cpu_memory
resident = lambda: psutil.Process().memory_info().rss
{call}
before = resident()
large, above = torch.ones(50_000_000), torch.ones(1_000_000)
del large
{later}
print((resident() - before) / 200e6)
"""
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_freed_memory_is_kept_where_that_is_asked_for() -> None:
    assert resident_after_freeing("") < 0.1
    assert resident_after_freeing("keep_freed_memory()") > 0.9


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
@pytest.mark.parametrize(("scarce", "kept"), [(0.0, True), (2.0, False)])
def test_kept_memory_is_returned_when_little_is_left(scarce: float, kept: bool) -> None:
    later = f"cpu_memory.SCARCE = {scarce}; return_freed_memory_if_scarce()"
    assert (resident_after_freeing("keep_freed_memory()", later) > 0.9) == kept
