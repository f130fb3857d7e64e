"""The optimizers, and the schedule that both follow."""

import math

import pytest
import torch

from smallwit.training.muon import Muon, orthogonalise
from smallwit.training.optimizer import make_optimizers, rate_share
from smallwit.training.settings import Optimizer
from test_training import CrossEntropyLoss, Prepared, demonstrations, make_trainer
from tiny import relative_error, tiny_model


def shares(spec: Optimizer, steps: int = 100) -> list[float]:
    return [rate_share(spec, step / steps) for step in range(steps + 1)]


def test_warmup_rises_in_a_line_from_a_first_step_that_learns() -> None:
    spec = Optimizer(warmup=0.2, schedule="constant")
    assert shares(spec)[:22] == pytest.approx([0.01, *(step / 20 for step in range(1, 20)), 1.0, 1.0])


def test_linear_schedule_falls_in_a_line_to_its_final_share() -> None:
    spec = Optimizer(warmup=0.2, schedule="linear", final=0.1)
    assert shares(spec)[20:] == pytest.approx([1.0 - 0.9 * step / 80 for step in range(81)])


def test_cosine_schedule_is_half_a_wave_to_its_final_share() -> None:
    spec = Optimizer(warmup=0.0, schedule="cosine", final=0.2)
    assert shares(spec) == pytest.approx([0.2 + 0.8 * (1 + math.cos(math.pi * step / 100)) / 2 for step in range(101)])


def test_constant_schedule_stays() -> None:
    assert set(shares(Optimizer(warmup=0.0, schedule="constant"))) == {1.0}


def test_wsd_schedule_is_flat_and_then_falls_in_a_line_over_the_last_share() -> None:
    values = shares(Optimizer(warmup=0.1, schedule="wsd", decay=0.25, final=0.2))
    assert values[10:76] == [1.0] * 66
    assert values[75:] == pytest.approx([1.0 - 0.8 * step / 25 for step in range(26)])


def test_wsd_phases_that_overlap_are_refused() -> None:
    with pytest.raises(ValueError, match="exceed the whole stage"):
        Optimizer(warmup=0.9, schedule="wsd", decay=0.2)


def test_a_schedule_of_warmup_alone_never_falls() -> None:
    values = shares(Optimizer(warmup=1.0))
    assert values == sorted(values)


def test_a_budget_of_flops_that_is_passed_stays_at_the_final_share() -> None:
    assert rate_share(Optimizer(final=0.3), 1.2) == pytest.approx(0.3)


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_every_group_of_every_optimizer_follows_the_schedule(kind: str) -> None:
    spec = Optimizer.model_validate({"kind": kind, "lr": 0.01, "matrix_lr": 0.03, "warmup": 0.3, "weight_decay": 0.1})
    trainer = make_trainer(
        tiny_model(),
        {"s": Prepared(demonstrations())},
        [CrossEntropyLoss("cross_entropy", "s", 1.0)],
        optimizer=spec,
        steps=10,
    )
    assert len(trainer.optimizers) == (2 if kind == "muon" else 1)
    for step in range(10):
        metrics = trainer.step()
        share = rate_share(spec, step / 10)
        assert metrics["lr"] == pytest.approx(0.01 * share)
        for one in trainer.optimizers:
            peak = 0.03 if isinstance(one, Muon) else 0.01
            assert [group["lr"] for group in one.param_groups] == pytest.approx([peak * share] * len(one.param_groups))


def test_muon_takes_the_layers_matrices_and_adamw_all_the_rest() -> None:
    model = tiny_model()
    adamw, muon = make_optimizers(model, Optimizer(kind="muon", weight_decay=0.1))
    names = {id(parameter): name for name, parameter in model.named_parameters()}

    def taken(optimizer: torch.optim.Optimizer) -> set[str]:
        return {names[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]}

    assert taken(muon) == {name for name in names.values() if "proj.weight" in name}
    assert taken(adamw) == set(names.values()) - taken(muon)


def test_vectors_do_not_decay() -> None:
    (adamw,) = make_optimizers(tiny_model(), Optimizer(weight_decay=0.1))
    decays = {(group["weight_decay"], p.dim() < 2) for group in adamw.param_groups for p in group["params"]}
    assert decays == {(0.1, False), (0.0, True)}


@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 8, 32), (2, 32, 8), (1, 1, 5)])
def test_orthogonalised_matrices_have_singular_values_near_one(shape: tuple[int, int, int]) -> None:
    matrices = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalise(matrices))
    assert values.min() > 0.6
    assert values.max() < 1.3


def test_orthogonalising_keeps_the_singular_vectors_and_ignores_the_size() -> None:
    matrix = torch.randn(1, 8, 12, generator=torch.Generator().manual_seed(0))
    u, _, vh = torch.linalg.svd(matrix[0], full_matrices=False)
    inside = u.T @ orthogonalise(matrix)[0] @ vh.T
    assert (inside - torch.diag(inside.diagonal())).abs().max() < 1e-4
    torch.testing.assert_close(orthogonalise(1000 * matrix), orthogonalise(matrix), rtol=1e-4, atol=1e-5)


def test_orthogonalising_zero_gives_zero() -> None:
    assert not orthogonalise(torch.zeros(1, 4, 4)).any()


def test_matrices_in_one_batch_equal_each_alone() -> None:
    matrices = torch.randn(3, 6, 9, generator=torch.Generator().manual_seed(0))
    together = orthogonalise(matrices)
    torch.testing.assert_close(
        together, torch.cat([orthogonalise(one[None]) for one in matrices]), rtol=1e-4, atol=1e-5
    )


def test_muon_lowers_a_quadratic_loss() -> None:
    generator = torch.Generator().manual_seed(0)
    weight, target = torch.zeros(6, 10, requires_grad=True), torch.randn(6, 10, generator=generator)
    optimizer = Muon([weight], lr=0.2)
    losses = []
    for step in range(60):
        loss = (weight - target).square().sum()
        optimizer.zero_grad()
        loss.backward()
        # Its updates are of one size, whatever the gradient's: only a falling rate brings them to rest.
        optimizer.param_groups[0]["lr"] = 0.2 * (1 - step / 60)
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.05 * losses[0]


@pytest.mark.parametrize("shape", [(8, 24), (24, 8), (16, 16)])
def test_muon_walks_as_torch_s_own_does_in_half_precision(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    start, gradients = torch.randn(*shape, generator=generator), torch.randn(5, *shape, generator=generator)
    ours, theirs = start.clone().requires_grad_(), start.clone().requires_grad_()
    mine = Muon([ours], lr=0.02, weight_decay=0.1)
    reference = torch.optim.Muon([theirs], lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for gradient in gradients:
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        mine.step()
        reference.step()
    assert relative_error(ours.detach() - start, theirs.detach() - start) < 0.02


def test_an_update_of_muon_is_as_large_as_one_of_adamw() -> None:
    weight = torch.zeros(16, 64, requires_grad=True)
    weight.grad = torch.randn(16, 64, generator=torch.Generator().manual_seed(0))
    Muon([weight], lr=0.01).step()
    size = weight.detach().square().mean().sqrt().item()
    assert size == pytest.approx(0.2 * 0.01, rel=0.2)  # AdamW's updates measure 0.2 to 0.4 of its rate


def test_muon_decays_weights_as_adamw_does() -> None:
    weight = torch.full((4, 4), 2.0, requires_grad=True)
    weight.grad = torch.zeros(4, 4)
    Muon([weight], lr=0.1, weight_decay=0.5).step()
    torch.testing.assert_close(weight.detach(), torch.full((4, 4), 2.0 * (1 - 0.1 * 0.5)))


def test_muon_leaves_matrices_without_a_gradient_alone() -> None:
    weight = torch.ones(4, 4, requires_grad=True)
    Muon([weight], lr=0.1, weight_decay=0.5).step()
    assert torch.equal(weight.detach(), torch.ones(4, 4))


def test_muon_refuses_vectors() -> None:
    with pytest.raises(ValueError, match="matrices"):
        Muon([torch.zeros(4)], lr=0.1)
