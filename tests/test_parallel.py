"""Several processes train one model as one process does: the same loss, the same gradient, the same weights in each."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.launcher import LaunchConfig, elastic_launch

from parallel_cases import CASES, make_trainer, script, take_steps
from smallwit.pipeline.processes import fork_server
from smallwit.training.checkpoint import Checkpoints
from smallwit.training.distributed import SINGLE_PROCESS, PeerLost, World
from tiny import relative_error, same_bits
from together import Elsewhere, together


@pytest.mark.slow
class TestWorld:
    def test_shares_hold_every_item_once_and_about_the_same_size(self) -> None:
        sizes = [9, 1, 8, 2, 7, 3, 3, 3]
        shares = [World(rank, 3).share(range(8), sizes) for rank in range(3)]
        assert sorted(i for share in shares for i in share) == list(range(8))
        assert all(share == sorted(share) for share in shares), "in the order in which they came"
        assert {sum(sizes[i] for i in share) for share in shares} == {12}

    def test_fewer_items_than_processes_leave_some_without(self) -> None:
        assert [World(rank, 3).share("ab", [1, 1]) for rank in range(3)] == [["a"], ["b"], []]

    @pytest.mark.slow
    @pytest.mark.parametrize("count", [0, 1, 5, 6])
    def test_what_is_spread_comes_together_in_order_everywhere(self, count: int) -> None:
        whole = [(i, 10 * i) for i in range(count)]
        results = together(spread_over, count, size=3)
        assert [pairs for pairs, _ in results] == [whole] * 3
        assert sum(done for _, done in results) == count, "each is worked on once"

    def test_gradients_are_summed_and_one_that_nobody_has_stays_away(self) -> None:
        for summed in together(sum_some_gradients):
            assert summed == [[11.0, 11.0], [5.0], None]

    def test_a_process_that_others_have_lost_is_named_as_such(self) -> None:
        with pytest.raises(Elsewhere, match=PeerLost.__name__):
            together(leave_early)


def spread_over(world: World, count: int) -> tuple[list[tuple[int, int]], int]:
    done = []

    def work(share: range) -> list[tuple[int, int]]:
        done.extend(share)
        return [(i, 10 * i) for i in share]

    return world.sharded_map(work, range(count)), len(done)


def sum_some_gradients(world: World) -> list[Any]:
    both, one, none = (torch.nn.Parameter(torch.zeros(size)) for size in (2, 1, 3))
    both.grad = torch.full((2,), 1.0 if world.first else 10.0)
    if not world.first:
        one.grad = torch.tensor([5.0])
    world.sum_gradients([both, one, none])
    return [None if p.grad is None else p.grad.tolist() for p in (both, one, none)]


def leave_early(world: World) -> None:
    if world.first:
        world.all_gather_object(1)
        world.all_gather_object(2)
    else:
        world.all_gather_object(1)


def same_step(together: dict[str, Any], alone: dict[str, Any]) -> None:
    for step, expected in zip(together["metrics"], alone["metrics"], strict=True):
        assert step["loss"] == pytest.approx(expected["loss"], rel=1e-6, abs=1e-6)
        assert step.keys() == expected.keys()
        for name in ("tokens", "flops", *(name for name in step if "length" in name or "reward" in name)):
            assert step[name] == pytest.approx(expected[name]), name
        for name in step:
            assert step[name] == pytest.approx(expected[name], rel=1e-3, abs=1e-5), name
    for gradient, expected in zip(together["gradients"], alone["gradients"], strict=True):
        assert float(expected.norm()) > 0
        assert relative_error(gradient, expected) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_two_processes_have_the_loss_and_the_gradient_of_one(case: str) -> None:
    alone = take_steps(SINGLE_PROCESS, case)
    for each in together(take_steps, case):
        same_step(each, alone)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["cross_entropy", "joint"])
def test_more_processes_than_problems_or_examples_do_too(case: str) -> None:
    alone = take_steps(SINGLE_PROCESS, case)
    for each in together(take_steps, case, size=4):
        same_step(each, alone)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["joint", "ppo"])
def test_all_processes_have_the_same_weights_bit_for_bit(case: str) -> None:
    first, second = together(take_steps, case, 3)
    assert same_bits(first["weights"], second["weights"])
    assert first["metrics"] == second["metrics"]


def other_weights(world: World) -> dict[str, torch.Tensor]:
    """A step of a model that each process was given with weights of its own."""
    trainer = make_trainer(world, "cross_entropy")
    with torch.no_grad():
        for parameter in trainer.parameters:
            parameter.add_(world.rank)
    world.copy_from_first(trainer.parameters)
    trainer.step()
    return {name: tensor.detach().clone() for name, tensor in trainer.trained_tensors().items()}


def test_the_first_process_weights_are_everyones() -> None:
    first, second = together(other_weights)
    assert same_bits(first, second)
    trainer = make_trainer(SINGLE_PROCESS, "cross_entropy")
    trainer.step()
    alone = {name: tensor.detach() for name, tensor in trainer.trained_tensors().items()}
    assert all(torch.allclose(first[name], alone[name], atol=1e-4) for name in alone)


def run_and_resume(world: World, case: str, folder: Path, stops: list[int]) -> dict[str, torch.Tensor]:
    """Some steps, with a new trainer that resumes from the folder after each of the steps `stops`."""
    checkpoints = Checkpoints(folder, "key")
    for stop in [*stops, 5]:
        trainer = make_trainer(world, case, steps=5)
        trainer.resume(checkpoints)
        while trainer.progress.step < stop:
            trainer.step()
        trainer.save(checkpoints)
        world.all_gather_object("saved")
    return {name: tensor.detach().clone() for name, tensor in trainer.trained_tensors().items()}


@pytest.mark.slow
@pytest.mark.parametrize("case", ["joint", "ppo"])
def test_a_resumed_run_ends_with_the_weights_of_one_that_was_not_interrupted(case: str, tmp_path: Path) -> None:
    whole, _ = together(run_and_resume, case, tmp_path / "whole", [])
    for resumed in together(run_and_resume, case, tmp_path / "resumed", [1, 3]):
        assert same_bits(resumed, whole)


def resume_elsewhere(world: World, folder: Path) -> None:
    make_trainer(world, "cross_entropy").resume(Checkpoints(folder / str(world.rank), "key"))


def test_processes_that_find_different_checkpoints_do_not_begin(tmp_path: Path) -> None:
    trainer = make_trainer(SINGLE_PROCESS, "cross_entropy")
    trainer.step()
    trainer.save(Checkpoints(tmp_path / "0", "key"))
    with pytest.raises(Elsewhere, match=r"find checkpoints of different steps there \(\[1, None\], by rank\)"):
        together(resume_elsewhere, tmp_path)


def poisoned_steps(world: World, steps: int) -> list[dict[str, float]]:
    """Steps in which the second process alone meets a gradient that is not finite."""
    trainer = make_trainer(world, "cross_entropy", steps=steps)
    if not world.first:
        trainer.parameters[0].register_hook(lambda gradient: gradient * torch.nan)
    return [trainer.step() | {"skipped": trainer.progress.skipped} for _ in range(steps)]


def test_a_gradient_that_is_not_finite_in_one_process_is_skipped_by_all() -> None:
    for metrics in together(poisoned_steps, 2):
        assert [step["skipped"] for step in metrics] == [1, 2]


@pytest.mark.slow
def test_a_script_under_torchrun_has_the_loss_and_the_gradient_of_one_process(tmp_path: Path) -> None:
    """Started by what torchrun itself calls, from the fork server: three imports of torch take longer than the step."""
    fork_server()
    standalone = {"run_id": "tests", "rdzv_backend": "c10d", "rdzv_endpoint": "127.0.0.1:0", "max_restarts": 0}
    config = LaunchConfig(1, 1, 2, start_method="forkserver", **standalone)
    with ThreadPoolExecutor(1) as pool:  # in another thread than the main one it leaves the signal handlers alone
        pool.submit(elastic_launch(config, script), "joint", tmp_path / "step.pt").result()
    same_step(torch.load(tmp_path / "step.pt"), take_steps(SINGLE_PROCESS, "joint"))
