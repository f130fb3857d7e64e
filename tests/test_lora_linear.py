"""Adapted layers as one operation: the same as peft's, with fewer passes over memory."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("peft", reason="peft is not installed: pip install 'smallwit[lora]'")

from peft import LoraConfig, get_peft_model

from smallwit.training.lora_linear import fuse_adapters

ADAPTERS = LoraConfig(r=4, lora_alpha=12, target_modules="all-linear", init_lora_weights=False)


class Layers(torch.nn.Module):
    """A layer with a bias, and behind it one without."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(24, 40)
        self.second = torch.nn.Linear(40, 16, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.tanh(self.first(x)))


def adapted(dtype: torch.dtype = torch.float32) -> tuple[Any, Any]:
    """Return a model as peft computes it, and a copy with fused layers; the frozen weights in `dtype`."""
    torch.manual_seed(0)
    plain = get_peft_model(Layers().to(dtype), ADAPTERS)
    for parameter in plain.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    fused = copy.deepcopy(plain)
    fuse_adapters(fused)
    return plain, fused


def outputs_and_gradients(model: Any, half: bool) -> dict[str, Tensor]:
    torch.manual_seed(1)
    x = torch.randn(2, 7, 24, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        y = model(x)
    y.float().square().mean().backward()
    found = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    return {"y": y.detach().float(), "x": x.grad} | found


def test_outputs_and_gradients_are_those_of_peft() -> None:
    plain, fused = (outputs_and_gradients(each, half=False) for each in adapted())
    assert plain.keys() == fused.keys()
    for name, tensor in plain.items():
        torch.testing.assert_close(fused[name], tensor, rtol=1e-5, atol=1e-6)


def test_in_mixed_precision_they_are_no_further_from_float32_than_those_of_peft() -> None:
    exact = outputs_and_gradients(adapted()[0], half=False)
    plain, fused = (outputs_and_gradients(each, half=True) for each in adapted(torch.bfloat16))
    for name, tensor in exact.items():
        assert fused[name].dtype == plain[name].dtype
        assert (fused[name] - tensor).norm() < 1.2 * (plain[name] - tensor).norm()


def test_fewer_bytes_are_kept_for_the_backward_pass() -> None:
    def kept(model: Any) -> int:
        storages: dict[int, int] = {}

        def note(tensor: Tensor) -> Tensor:
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            outputs_and_gradients(model, half=True)
        return sum(storages.values())

    plain, fused = map(kept, adapted(torch.bfloat16))
    assert fused < plain


def test_disabled_adapters_have_no_effect() -> None:
    plain, fused = adapted()
    x = torch.randn(3, 24)
    with fused.disable_adapter():
        off = fused(x)
    assert torch.equal(off, plain.get_base_model().second.base_layer(torch.tanh(plain.base_model.first.base_layer(x))))
    assert not torch.equal(fused(x), off)


def test_merged_adapters_are_not_added_twice() -> None:
    _, fused = adapted()
    x = torch.randn(3, 24)
    before = fused(x)
    fused.merge_adapter()
    torch.testing.assert_close(fused(x), before)


def test_inputs_in_another_number_format_than_the_weights_go_through_peft() -> None:
    plain, fused = adapted(torch.bfloat16)
    x = torch.randn(3, 24, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.float16):
        assert torch.equal(fused(x), plain(x))
