"""The chunked head and every objective against plain float64 arithmetic on full logits."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from divergence_cases import DIVERGENCE_CASES
from objective_cases import CHUNK, ROWS, TOKENS, VOCABULARY, Case, Inputs, random_inputs, reference_log_prob
from smallwit.objectives.head import Entropy, LogProb, chunked_loss, token_statistics
from smallwit.objectives.policy_gradient import clipped_surrogate
from smallwit.objectives.teacher import TeacherHead
from tiny import relative_error


def reference_surrogate(logits: Tensor, inputs: Inputs) -> Tensor:
    ratio = (reference_log_prob(logits, inputs) - inputs.old_log_probs.double()).exp()
    advantages = inputs.advantages.double()
    return -torch.minimum(ratio * advantages, ratio.clamp(0.8, 1.2) * advantages)


def reference_entropy(logits: Tensor, inputs: Inputs) -> Tensor:
    p = torch.softmax(logits / 0.8, 1)
    return -(p * p.log()).sum(1)


CASES = {
    "cross-entropy": Case(
        lambda x: LogProb(x.labels),
        lambda values, x: -values,
        lambda z, x: -reference_log_prob(z, x),
    ),
    "log-prob-at-temperature": Case(
        lambda x: LogProb(x.labels, 0.7),
        lambda values, x: values,
        lambda z, x: reference_log_prob(z, x, 0.7),
    ),
    "entropy": Case(lambda x: Entropy(0.8), lambda values, x: values, reference_entropy),
    "grpo": Case(
        lambda x: LogProb(x.labels),
        lambda values, x: clipped_surrogate((values - x.old_log_probs).exp(), x.advantages, 0.2, 0.2),
        reference_surrogate,
    ),
    **DIVERGENCE_CASES,
}


@pytest.fixture(params=list(CASES.values()), ids=list(CASES))
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


@pytest.mark.parametrize("seed", range(3))
def test_values_equal_float64_on_full_logits(case: Case, seed: int) -> None:
    x = random_inputs(seed)
    (values,) = token_statistics(x.hidden, x.weight, [case.view(x)], chunk_elements=CHUNK)
    reference = case.reference(x.hidden.double() @ x.weight.double().T, x)
    assert values.dtype == torch.float32
    torch.testing.assert_close(case.loss(values, x).double(), reference, rtol=1e-5, atol=1e-6)
    assert relative_error((case.loss(values, x) * x.weights).sum(), (reference * x.weights).sum()) < 1e-5


@pytest.mark.parametrize("seed", range(3))
def test_gradients_equal_float64_on_full_logits(case: Case, seed: int) -> None:
    x = random_inputs(seed)
    leaves = [x.hidden.requires_grad_(), x.weight.requires_grad_()]
    (values,) = token_statistics(x.hidden, x.weight, [case.view(x)], chunk_elements=CHUNK)
    ours = torch.autograd.grad((case.loss(values, x) * x.weights).sum(), leaves)

    exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
    loss = (case.reference(exact[0] @ exact[1].T, x) * x.weights).sum()
    for mine, reference in zip(ours, torch.autograd.grad(loss, exact), strict=True):
        assert relative_error(mine, reference) < 1e-4


@pytest.mark.parametrize("rows", [1, 5, TOKENS])
def test_one_pass_equals_two(case: Case, rows: int) -> None:
    x = random_inputs(1)
    leaves = [x.hidden.requires_grad_(), x.weight.requires_grad_()]
    (expected,) = token_statistics(x.hidden, x.weight[:VOCABULARY], [case.view(x)])
    exact = torch.autograd.grad(3.0 * (case.loss(expected, x) * x.weights).sum(), leaves)

    def loss(values: Sequence[Tensor], tokens: slice) -> Tensor:
        return (case.loss(values[0], x.part(tokens)) * x.weights[tokens]).sum()

    total, (values,) = chunked_loss(
        x.hidden, x.weight, [case.view(x)], loss, vocabulary=VOCABULARY, chunk_elements=rows * ROWS
    )
    torch.testing.assert_close(values, expected.detach(), rtol=1e-5, atol=1e-6)
    for mine, reference in zip(torch.autograd.grad(3.0 * total, leaves), exact, strict=True):
        assert relative_error(mine, reference) < 1e-5


def test_views_of_one_pass_share_their_chunk_without_harm() -> None:
    x = random_inputs(1)
    x.hidden.requires_grad_()
    cases = list(CASES.values())

    def together(values: Sequence[Tensor], tokens: slice) -> Tensor:
        part = x.part(tokens)
        losses = [case.loss(value, part) for case, value in zip(cases, values, strict=True)]
        return (torch.stack(losses).sum(0) * x.weights[tokens]).sum()

    views = [case.view(x) for case in cases]
    total, _ = chunked_loss(x.hidden, x.weight, views, together, chunk_elements=CHUNK)
    (gradient,) = torch.autograd.grad(total, x.hidden)
    statistics = token_statistics(x.hidden, x.weight, views)
    alone = torch.stack([case.loss(values, x) for case, values in zip(cases, statistics, strict=True)]).sum(0)
    (expected,) = torch.autograd.grad((alone * x.weights).sum(), x.hidden)
    assert relative_error(gradient, expected) < 1e-5


def test_inputs_try_both_sides_of_the_clip() -> None:
    x = random_inputs(0)
    log_probs = reference_log_prob(x.hidden @ x.weight.T, x)
    ratio = (log_probs - x.old_log_probs).exp()
    for sign in (-1, 1):
        mine = ratio[x.advantages * sign > 0]
        assert (mine > 1.2).any()
        assert (mine < 0.8).any()
        assert ((mine > 0.8) & (mine < 1.2)).any()


@pytest.mark.slow
@pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in CASES.items() if case.exact])
def test_analytic_gradients_pass_gradcheck(case: Case) -> None:
    x = random_inputs(0)
    teacher = TeacherHead(x.teacher.hidden[:3].double(), x.teacher.weight.double(), VOCABULARY)
    small = Inputs(x.hidden, x.weight, x.labels[:3], teacher, x.weights, x.old_log_probs[:3], x.advantages[:3])
    hidden, weight = x.hidden[:3, :2].double(), x.weight[:, :2].double()

    def statistic(hidden: Tensor, weight: Tensor) -> Tensor:
        return token_statistics(hidden, weight, [case.view(small)], chunk_elements=2 * ROWS)[0]

    assert torch.autograd.gradcheck(statistic, (hidden.requires_grad_(), weight.requires_grad_()))


def test_several_views_in_one_pass_equal_each_alone() -> None:
    x = random_inputs(1)
    x.hidden.requires_grad_()
    views = [case.view(x) for case in CASES.values()]
    together = token_statistics(x.hidden, x.weight, views, chunk_elements=CHUNK)
    alone = [token_statistics(x.hidden, x.weight, [view], chunk_elements=CHUNK)[0] for view in views]
    for one, other in zip(together, alone, strict=True):
        assert torch.equal(one, other)
    (gradient,) = torch.autograd.grad((torch.stack(together) * x.weights).sum(), x.hidden)
    (expected,) = torch.autograd.grad((torch.stack(alone) * x.weights).sum(), x.hidden)
    assert relative_error(gradient, expected) < 1e-5


def test_a_view_that_no_loss_uses_adds_no_gradient() -> None:
    x = random_inputs(1)
    x.hidden.requires_grad_()
    log_prob, _entropy = token_statistics(x.hidden, x.weight, [LogProb(x.labels), Entropy(0.5)])
    (alone,) = token_statistics(x.hidden, x.weight, [LogProb(x.labels)])
    assert torch.equal(*(torch.autograd.grad(values.sum(), x.hidden)[0] for values in (log_prob, alone)))


@pytest.mark.parametrize("rows", [1, 7, TOKENS - 1, TOKENS, 10 * TOKENS])
def test_size_of_the_chunks_does_not_matter(case: Case, rows: int) -> None:
    x = random_inputs(2)
    (values,) = token_statistics(x.hidden, x.weight, [case.view(x)], chunk_elements=rows * ROWS)
    (expected,) = token_statistics(x.hidden, x.weight, [case.view(x)])
    torch.testing.assert_close(values, expected, rtol=1e-5, atol=1e-6)


def test_tokens_of_weight_zero_get_no_gradient(case: Case) -> None:
    x = random_inputs(0)
    x.hidden.requires_grad_()
    (values,) = token_statistics(x.hidden, x.weight, [case.view(x)], chunk_elements=CHUNK)
    (gradient,) = torch.autograd.grad((case.loss(values, x) * x.weights).sum(), x.hidden)
    assert (x.weights == 0).any()
    assert not gradient[x.weights == 0].any()


class LargestTensor(TorchDispatchMode):
    """Records the most elements that a tensor made in its scope has."""

    largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        made = result if isinstance(result, tuple | list) else [result]
        self.largest = max([self.largest, *(each.numel() for each in made if isinstance(each, Tensor))])
        return result


def test_no_tensor_is_larger_than_a_chunk_of_logits(case: Case) -> None:
    x = random_inputs(0)
    chunk = 4 * ROWS
    hidden, weight = x.hidden[:, :2].clone().requires_grad_(), x.weight[:, :2].clone().requires_grad_()
    small_teacher = TeacherHead(x.teacher.hidden[:, :2].clone(), x.teacher.weight[:, :2].clone(), VOCABULARY)
    x.teacher = small_teacher
    assert max(hidden.numel(), weight.numel(), small_teacher.weight.numel()) < chunk < TOKENS * ROWS / 4
    with LargestTensor() as mode:
        (values,) = token_statistics(hidden, weight, [case.view(x)], chunk_elements=chunk)
        (case.loss(values, x) * x.weights).sum().backward()
    assert mode.largest == chunk


def test_forward_keeps_nothing_but_its_inputs(case: Case) -> None:
    x = random_inputs(0)
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    leaves = x.hidden.requires_grad_(), x.weight.requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        token_statistics(*leaves, [case.view(x)], chunk_elements=CHUNK)
    assert {tensor.data_ptr() for tensor in kept} == {leaf.data_ptr() for leaf in leaves}


def test_frozen_head_gets_no_gradient_and_changes_none() -> None:
    x = random_inputs(0)
    x.hidden.requires_grad_()
    (values,) = token_statistics(x.hidden, x.weight, [LogProb(x.labels)])
    (frozen,) = torch.autograd.grad(values.sum(), x.hidden)
    x.weight.requires_grad_()
    (values,) = token_statistics(x.hidden, x.weight, [LogProb(x.labels)])
    trained, _ = torch.autograd.grad(values.sum(), [x.hidden, x.weight])
    assert torch.equal(frozen, trained)


def test_statistics_of_half_precision_states_are_float32() -> None:
    x = random_inputs(0)
    hidden, weight = x.hidden.bfloat16(), x.weight.bfloat16()
    (values,) = token_statistics(hidden, weight, [LogProb(x.labels)])
    assert values.dtype == torch.float32
    reference = reference_log_prob(hidden.double() @ weight.double().T, x)
    assert relative_error(values, reference) < 1e-2


def test_no_tokens_at_all_are_fine() -> None:
    hidden, weight = torch.zeros(0, 4, requires_grad=True), torch.randn(9, 4, requires_grad=True)
    (values,) = token_statistics(hidden, weight, [LogProb(torch.zeros(0, dtype=torch.long))])
    values.sum().backward()
    assert values.shape == (0,)
    assert weight.grad is not None
    assert not weight.grad.any()


def test_shapes_that_do_not_fit_are_refused_with_both_shapes() -> None:
    with pytest.raises(ValueError, match=r"\[3, 4\] and \[9, 5\]"):
        token_statistics(torch.zeros(3, 4), torch.zeros(9, 5), [Entropy()])
