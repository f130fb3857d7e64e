"""Products on a CPU: every form computes x W^T."""

import pytest
import torch
from torch.nn.functional import silu

from smallwit.models import cpu_products
from smallwit.models.cpu_products import product, turned_swiglu, turns_swiglu, write_product

SIZES = {
    "a token": (1, 64, 96),
    "few tokens": (8, 64, 96),
    "a small weight": (40, 64, 96),
    "a large weight": (40, 1024, 2500),
    "few tokens, a large weight": (3, 1024, 2500),
    "many tokens": (300, 512, 700),
    "no token": (0, 64, 96),
}


def drawn(rows: int, width: int, outputs: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.randn(rows, width), torch.randn(outputs, width), torch.randn(outputs)


@pytest.mark.parametrize("size", SIZES)
def test_a_product_is_that_of_float64_up_to_rounding(size: str) -> None:
    x, weight, bias = drawn(*SIZES[size])
    exact = x.double() @ weight.double().T
    assert torch.allclose(product(x, weight).double(), exact, atol=1e-3)
    assert torch.allclose(product(x, weight, bias).double(), exact + bias, atol=1e-3)
    assert torch.allclose(write_product(x, weight, torch.empty(len(x), len(weight))).double(), exact, atol=1e-3)


@pytest.mark.parametrize("size", SIZES)
def test_a_product_is_the_same_bits_each_time(size: str) -> None:
    x, weight, bias = drawn(*SIZES[size])
    assert torch.equal(product(x, weight, bias), product(x, weight, bias))


def test_large_weights_go_through_onednn_where_it_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    if not cpu_products._ONEDNN:
        pytest.skip("torch has no oneDNN here")
    called = []
    through = cpu_products._onednn
    monkeypatch.setattr(cpu_products, "_onednn", lambda *given: called.append(1) or through(*given))
    x, weight, _ = drawn(40, 1024, 2500)
    product(x, weight)
    write_product(x, weight, torch.empty(40, 2500))
    assert len(called) == 1 + 2  # one product, and one for each block of rows


def test_without_onednn_the_products_are_torchs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_products, "_ONEDNN", False)
    x, weight, bias = drawn(40, 1024, 2500)
    assert torch.equal(product(x, weight, bias), torch.nn.functional.linear(x, weight, bias))
    assert torch.equal(write_product(x, weight, torch.empty(40, 2500)), x @ weight.T)


def test_leading_dimensions_are_kept_and_weights_get_no_gradient() -> None:
    x, weight, bias = drawn(6, 64, 96)
    found = product(x.view(2, 3, 64), weight.requires_grad_(), bias)
    assert found.shape == (2, 3, 96)
    assert not found.requires_grad
    assert product(x[0], weight).shape == (96,)


def test_under_autocast_and_in_other_formats_they_are_torchs_own() -> None:
    x, weight, bias = drawn(8, 64, 96)
    with torch.autocast("cpu", torch.bfloat16):
        assert product(x, weight, bias).dtype == torch.bfloat16
    assert torch.equal(product(x.double(), weight.double()), x.double() @ weight.double().T)


def gated(bias: bool = False, dtype: torch.dtype = torch.bfloat16) -> list[torch.nn.Linear]:
    """Return the three projections of a gated layer."""
    torch.manual_seed(0)
    shapes = ((512, 700), (512, 700), (700, 512))
    return [torch.nn.Linear(*shape, bias=bias, dtype=dtype) for shape in shapes]


@torch.no_grad()
def test_a_turned_gated_layer_is_as_near_to_float64_as_three_layers() -> None:
    gate, up, down = gated()
    x = torch.randn(3, 5, 512, dtype=torch.bfloat16)
    by_layers = down(silu(gate(x)) * up(x)).double()
    turned = turned_swiglu(x, gate.weight, up.weight, down.weight).double()
    w, v, u = (each.weight.double() for each in (gate, up, down))
    exact = (silu(x.double() @ w.T) * (x.double() @ v.T)) @ u.T
    assert turned.shape == exact.shape
    assert (turned - exact).norm() < 1.1 * (by_layers - exact).norm()


def test_a_gated_layer_is_turned_for_few_rows_in_bfloat16_without_biases_alone() -> None:
    if not cpu_products._ONEDNN:
        pytest.skip("torch has no oneDNN here")
    few, many = (torch.randn(rows, 512, dtype=torch.bfloat16) for rows in (40, 400))
    assert turns_swiglu(few, *gated())
    assert not turns_swiglu(many, *gated())
    assert not turns_swiglu(few[:1], *gated())
    assert not turns_swiglu(few, *gated(bias=True))
    assert not turns_swiglu(few.float(), *gated(dtype=torch.float32))
