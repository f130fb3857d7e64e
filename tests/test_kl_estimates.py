"""k1, k2 and k3: what they estimate, and what their gradients as a loss are, by exact sums over a small vocabulary."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from smallwit.objectives.kl_estimates import KLEstimate, kl_estimate
from tiny import relative_error

KINDS: tuple[KLEstimate, ...] = ("k1", "k2", "k3")


def logits() -> tuple[Tensor, Tensor]:
    """Of a policy (with gradient) and a reference, over 7 tokens, in float64."""
    generator = torch.Generator().manual_seed(0)
    policy, reference = torch.randn(2, 7, generator=generator, dtype=torch.float64)
    return policy.requires_grad_(), reference


def expected_gradient(kind: KLEstimate) -> Tensor:
    """E over p of the gradient of the estimate at the sampled token, the sample held fixed."""
    policy, reference = logits()
    log_p, log_q = torch.log_softmax(policy, 0), torch.log_softmax(reference, 0)
    loss = (log_p.detach().exp() * kl_estimate(log_p, log_q, kind)).sum()
    return torch.autograd.grad(loss, policy)[0]


def true_gradient(divergence: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    policy, reference = logits()
    loss = divergence(torch.log_softmax(policy, 0), torch.log_softmax(reference, 0))
    return torch.autograd.grad(loss, policy)[0]


@pytest.mark.parametrize(
    ("kind", "formula"),
    [
        ("k1", lambda r: -r.log()),
        ("k2", lambda r: r.log() ** 2 / 2),
        ("k3", lambda r: r - 1 - r.log()),
    ],
)
def test_values_equal_the_formula_of_the_ratio(kind: KLEstimate, formula: Callable[[Tensor], Tensor]) -> None:
    generator = torch.Generator().manual_seed(1)
    log_p, log_q = -2 * torch.rand(2, 50, generator=generator)
    ratio = log_q.double().exp() / log_p.double().exp()
    torch.testing.assert_close(kl_estimate(log_p, log_q, kind).double(), formula(ratio), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["k1", "k3"])
def test_k1_and_k3_are_unbiased_as_numbers(kind: KLEstimate) -> None:
    policy, reference = logits()
    log_p, log_q = torch.log_softmax(policy, 0), torch.log_softmax(reference, 0)
    mean = (log_p.exp() * kl_estimate(log_p, log_q, kind)).sum()
    torch.testing.assert_close(mean, (log_p.exp() * (log_p - log_q)).sum())


def test_k3_close_to_the_reference_keeps_its_digits() -> None:
    log_p = torch.full((1,), -1.0)
    # (log r)^2 / 2 is the first term of its series.
    assert kl_estimate(log_p, log_p + 1e-3, "k3").item() == pytest.approx(5e-7, rel=1e-2)


@pytest.mark.parametrize("kind", KINDS)
def test_all_are_zero_to_oneself(kind: KLEstimate) -> None:
    log_p = -torch.rand(9)
    assert not kl_estimate(log_p, log_p, kind).any()


def test_k1_as_a_loss_teaches_nothing() -> None:
    assert expected_gradient("k1").abs().max() < 1e-12


def test_k2_as_a_loss_has_the_gradient_of_kl_to_the_reference() -> None:
    true = true_gradient(lambda log_p, log_q: (log_p.exp() * (log_p - log_q)).sum())
    assert relative_error(expected_gradient("k2"), true) < 1e-12


def test_k3_as_a_loss_has_the_gradient_of_the_other_direction() -> None:
    other = true_gradient(lambda log_p, log_q: (log_q.exp() * (log_q - log_p)).sum())
    assert relative_error(expected_gradient("k3"), other) < 1e-12


def test_another_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="k1, k2 and k3; got k4"):
        kl_estimate(torch.zeros(1), torch.zeros(1), "k4")  # type: ignore[arg-type]
