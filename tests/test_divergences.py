"""Divergences to a teacher: their limits, what takes part in them, and the teacher's top k in place of its all."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from divergence_cases import DIVERGENCES, TOP, top_k
from objective_cases import CHUNK, ROWS, VOCABULARY, Inputs, random_inputs
from smallwit.objectives.distillation import Divergence
from smallwit.objectives.divergence import DivergenceStatistic
from smallwit.objectives.head import LogProb, token_statistics
from smallwit.objectives.kinds.divergences import (
    ForwardKL,
    JensenShannon,
    ReverseKL,
    SkewForwardKL,
    SkewReverseKL,
    TotalVariation,
)
from smallwit.objectives.kl_estimates import kl_estimate
from smallwit.objectives.teacher import TeacherDistribution, TeacherHead
from tiny import relative_error


@pytest.fixture(params=[divergence for divergence, _ in DIVERGENCES.values()], ids=list(DIVERGENCES))
def divergence(request: pytest.FixtureRequest) -> Divergence:
    return request.param


def values_of(x: Inputs, *divergences: Divergence, teacher: TeacherDistribution | None = None) -> tuple[Tensor, ...]:
    views = [DivergenceStatistic(each, teacher or x.teacher) for each in divergences]
    return token_statistics(x.hidden, x.weight, views, chunk_elements=CHUNK)


def gradient_of(x: Inputs, divergence: Divergence, teacher: TeacherDistribution | None = None) -> Tensor:
    """By the hidden states."""
    leaf = x.hidden.clone().requires_grad_()
    (values,) = values_of(replace(x, hidden=leaf), divergence, teacher=teacher)
    return torch.autograd.grad(values.sum(), leaf)[0]


@pytest.mark.parametrize("top", [False, True])
def test_padded_rows_take_no_part(divergence: Divergence, top: bool) -> None:
    x = random_inputs(0)
    padded_teacher, padded_student = x.teacher.weight.clone(), x.weight.clone()
    padded_teacher[VOCABULARY:] = padded_student[VOCABULARY:] = 50.0
    y = replace(x, teacher=replace(x.teacher, weight=padded_teacher), weight=padded_student.requires_grad_())
    (values,) = values_of(x, divergence, teacher=top_k(x, 1.0) if top else x.teacher)
    (same,) = values_of(y, divergence, teacher=top_k(y, 1.0) if top else y.teacher)
    torch.testing.assert_close(same, values, rtol=1e-4, atol=1e-5)
    (gradient,) = torch.autograd.grad(same.sum(), padded_student)
    assert not gradient[VOCABULARY:].any()
    assert gradient[:VOCABULARY].any()


def test_a_divergence_is_zero_to_oneself_and_positive_to_others(divergence: Divergence) -> None:
    x = random_inputs(0)
    oneself = TeacherHead(x.hidden.clone(), x.weight.clone(), ROWS)
    (to_oneself,), (to_another,) = values_of(x, divergence, teacher=oneself), values_of(x, divergence)
    assert to_oneself.abs().max() < 1e-6
    assert (to_another > 0).all()


# Total variation is left out: its gradient jumps there, as that of |x| at 0.
@pytest.mark.parametrize("name", [name for name in DIVERGENCES if name != "total-variation"])
def test_there_is_nothing_to_learn_from_oneself(name: str) -> None:
    divergence, _ = DIVERGENCES[name]
    x = random_inputs(0)
    assert gradient_of(x, divergence, TeacherHead(x.hidden.clone(), x.weight.clone(), ROWS)).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("near", "scale", "limit"),
    [
        (JensenShannon.make(beta=1e-6), 1e-6, ForwardKL.make()),
        (JensenShannon.make(beta=1 - 1e-6), 1e-6, ReverseKL.make()),
        (SkewForwardKL.make(alpha=1e-6), 1.0, ForwardKL.make()),
        (SkewReverseKL.make(alpha=1e-6), 1.0, ReverseKL.make()),
    ],
)
def test_mixtures_tend_to_forward_and_reverse_kl(near: Divergence, scale: float, limit: Divergence) -> None:
    x = random_inputs(0)
    x = replace(x, hidden=x.hidden.double(), weight=x.weight.double(), teacher=in_float64(x.teacher))
    value, expected = values_of(x, near, limit)
    assert relative_error(value / scale, expected) < 2e-2
    assert relative_error(gradient_of(x, near) / scale, gradient_of(x, limit)) < 5e-2


def in_float64(teacher: TeacherHead) -> TeacherHead:
    return replace(teacher, hidden=teacher.hidden.double(), weight=teacher.weight.double())


def test_divergences_keep_their_bounds_where_the_teacher_is_certain_and_the_student_certain_of_another() -> None:
    logits = 40 * torch.eye(4)[:2]
    hidden, weight = logits, torch.eye(4)
    teacher = TeacherHead(logits.flip(0), torch.eye(4), 4)
    views = [
        DivergenceStatistic(each, teacher)
        for each in (JensenShannon.make(beta=0.5), TotalVariation.make(), ReverseKL.make())
    ]
    jsd, variation, reverse = token_statistics(hidden, weight, views)
    assert jsd.tolist() == pytest.approx([0.6931472] * 2)
    assert variation.tolist() == pytest.approx([1.0] * 2)
    assert reverse.tolist() == pytest.approx([40.0] * 2)


class TestTopK:
    def test_all_tokens_as_top_k_are_the_whole_distribution(self, divergence: Divergence) -> None:
        x = random_inputs(0)
        everything = x.teacher.top_k(VOCABULARY + 5, 1.0, chunk_elements=CHUNK)
        assert everything.ids.shape[1] == VOCABULARY
        torch.testing.assert_close(
            *(values_of(x, divergence, teacher=each)[0] for each in (everything, x.teacher)), rtol=1e-5, atol=1e-6
        )
        assert relative_error(gradient_of(x, divergence, everything), gradient_of(x, divergence)) < 1e-5

    @pytest.mark.parametrize(
        "kind",
        [
            ForwardKL.make(),
            ReverseKL.make(),
            JensenShannon.make(beta=0.5),
            TotalVariation.make(),
        ],
    )
    def test_telling_fewer_outcomes_apart_never_makes_a_divergence_larger(self, kind: Divergence) -> None:
        x = random_inputs(0)
        by_k = [values_of(x, kind, teacher=x.teacher.top_k(k, 1.0, chunk_elements=CHUNK))[0] for k in (1, 4, 16, 64)]
        for coarse, fine in zip(by_k, [*by_k[1:], values_of(x, kind)[0]], strict=True):
            assert (coarse <= fine + 1e-6).all()

    def test_outcomes_add_up_to_one(self) -> None:
        x = random_inputs(0)
        top = top_k(x, 1.3)
        total = top.log_probs.exp().sum(1) + top.log_tail.exp()
        assert top.ids.shape == (len(x.labels), TOP)
        torch.testing.assert_close(total, torch.ones_like(total))

    def test_a_small_tail_keeps_its_digits(self) -> None:
        logits = torch.zeros(1, 50)
        logits[0, :2] = 25.0
        teacher = TeacherHead(logits, torch.eye(50), 50)
        exact = torch.softmax(logits.double(), 1)[0, 2:].sum().log()
        assert float(teacher.top_k(2, 1.0, chunk_elements=50).log_tail) == pytest.approx(float(exact), rel=1e-6)

    def test_a_student_without_any_mass_in_the_tail_gets_a_finite_gradient(self, divergence: Divergence) -> None:
        hidden = torch.zeros(1, 50)
        hidden[0, :2] = 300.0
        hidden.requires_grad_()
        teacher = TeacherHead(torch.randn(1, 50, generator=torch.Generator().manual_seed(0)), torch.eye(50), 50)
        view = DivergenceStatistic(
            divergence, replace(teacher.top_k(2, 1.0, chunk_elements=50), ids=torch.tensor([[0, 1]]))
        )
        (value,) = token_statistics(hidden, torch.eye(50), [view])
        assert value.isfinite().all()
        assert torch.autograd.grad(value.sum(), hidden)[0].isfinite().all()

    def test_another_temperature_is_refused(self) -> None:
        x = random_inputs(0)
        with pytest.raises(ValueError, match=r"temperature 2\.0; compared at 1\.0"):
            values_of(x, ForwardKL.make(), teacher=top_k(x, 2.0))


def test_k2_on_the_student_s_own_tokens_has_the_gradient_of_reverse_kl() -> None:
    """Where only the teacher's log-probs of the sampled tokens are known; here by a weighted sum over all tokens."""
    x = random_inputs(0)
    hidden, weight = x.hidden[:1], x.weight[:VOCABULARY]
    teacher = TeacherHead(x.teacher.hidden[:1], x.teacher.weight, VOCABULARY)
    every = torch.arange(VOCABULARY)
    leaf = hidden.clone().requires_grad_()
    (log_p,) = token_statistics(leaf.expand(VOCABULARY, -1), weight, [LogProb(every)])
    log_q = teacher.log_probs(slice(0, 1), 1.0)[0]
    estimate = (log_p.detach().exp() * kl_estimate(log_p, log_q, "k2")).sum()
    (gradient,) = torch.autograd.grad(estimate, leaf)
    x = replace(x, hidden=hidden, weight=weight, teacher=teacher)
    assert relative_error(gradient, gradient_of(x, ReverseKL.make())) < 1e-4
