"""A head whose logits are capped, as Gemma 2's: values and gradients against plain autograd in float64."""

import pytest
import torch
from torch import Tensor

from smallwit.objectives.head import LogProb, chunked_loss, token_statistics
from smallwit.objectives.teacher import TeacherHead

CAP = 2.0


def parts() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(7, 16, generator=generator).requires_grad_()
    weight = torch.randn(50, 16, generator=generator).requires_grad_()
    return hidden, weight, torch.randint(50, (7,), generator=generator)


def formula(hidden: Tensor, weight: Tensor, labels: Tensor, temperature: float) -> Tensor:
    logits = CAP * torch.tanh(hidden.double() @ weight.double().T / CAP)
    return torch.log_softmax(logits / temperature, 1).gather(1, labels[:, None]).squeeze(1)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("chunk", [60, 1 << 20])
def test_statistics_of_capped_logits_and_their_gradients(temperature: float, chunk: int) -> None:
    hidden, weight, labels = parts()
    upstream = torch.linspace(-1, 1, 7)
    views = [LogProb(labels, temperature)]
    (found,) = token_statistics(hidden, weight, views, softcap=CAP, chunk_elements=chunk)
    expected = formula(hidden, weight, labels, temperature)
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-5)
    ours = torch.autograd.grad((found * upstream).sum(), (hidden, weight))
    theirs = torch.autograd.grad((expected * upstream).sum(), (hidden, weight))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("chunk", [60, 1 << 20])
def test_a_loss_of_capped_logits_and_its_gradients(chunk: int) -> None:
    hidden, weight, labels = parts()
    loss, _ = chunked_loss(
        hidden, weight, [LogProb(labels)], lambda values, _: -values[0].sum(), softcap=CAP, chunk_elements=chunk
    )
    expected = -formula(hidden, weight, labels, 1.0).sum()
    torch.testing.assert_close(loss.double(), expected, atol=1e-5, rtol=1e-5)
    ours, theirs = (torch.autograd.grad(value, (hidden, weight)) for value in (loss, expected))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("prepared", [False, True])
def test_a_teacher_s_logits_are_capped(prepared: bool) -> None:
    hidden, weight, labels = parts()
    teacher = TeacherHead(hidden.detach(), weight.detach(), 50, softcap=CAP)
    if prepared:
        teacher.prepare(slice(0, 7))
    found = teacher.log_probs(slice(0, 7), 1.0).gather(1, labels[:, None]).squeeze(1)
    torch.testing.assert_close(found.double(), formula(hidden, weight, labels, 1.0).detach(), atol=1e-5, rtol=1e-5)
