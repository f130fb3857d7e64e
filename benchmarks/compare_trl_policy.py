"""The policy-gradient losses beside TRL's own code, on the same log-probs, old log-probs and advantages.

    PYTHONPATH=src python benchmarks/compare_trl_policy.py

in an environment that has TRL (1.16 when this was written). TRL's `_compute_loss` is called as it is, with the numbers
in place of a model; printed are both losses, and the relative differences of loss and gradient. Everything is float64,
so that a difference is one of the formulas. Exits 1 if one is larger than 1e-12.
"""

import sys
from collections import defaultdict
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Annotated, Any

import torch
import trl
from pydantic import TypeAdapter
from torch import Tensor
from trl import GRPOTrainer, RLOOTrainer

from smallwit.objectives.batch import Example, TokenBatch
from smallwit.objectives.settings import Objective
from smallwit.recipe.section import ByKind
from smallwit.training.settings import Rollouts

LENGTHS, LONGEST = (7, 3, 11, 1, 5, 9, 2, 8), 12
TOLERANCE = 1e-12


@dataclass(frozen=True)
class Case:
    """An entry of a recipe, and TRL's settings for the same."""

    ours: dict[str, Any]
    theirs: dict[str, Any]
    trainer: type = GRPOTrainer


REFERENCE = {"model": "reference", "weight": 0.04, "estimate": "k3"}
CASES = {
    "grpo": Case({"kind": "grpo"}, {"loss_type": "grpo"}),
    "grpo + k3": Case({"kind": "grpo", "reference": REFERENCE}, {"loss_type": "grpo", "beta": 0.04}),
    "dr_grpo": Case({"kind": "dr_grpo"}, {"loss_type": "dr_grpo"}),
    "dapo": Case({"kind": "dapo"}, {"loss_type": "dapo", "epsilon_high": 0.28}),
    "dapo + k3": Case(
        {"kind": "dapo", "reference": REFERENCE}, {"loss_type": "dapo", "epsilon_high": 0.28, "beta": 0.04}
    ),
    "gspo": Case(
        {"kind": "gspo", "clip_low": 0.05, "clip_high": 0.08},
        {
            "loss_type": "grpo",
            "importance_sampling_level": "sequence",
            "epsilon_low": 0.05,
            "epsilon_high": 0.08,
        },
    ),
    # TRL's bound is the weight itself, the paper's the distance from 1.
    "cispo": Case({"kind": "cispo", "clip_high": 0.3}, {"loss_type": "cispo", "epsilon_high": 1.3}),
    "rloo": Case({"kind": "rloo"}, {}, RLOOTrainer),
}


@dataclass(frozen=True)
class Numbers:
    """Log-probs `[B, T]` of the policy, the sampler and a reference, with zeros behind each sequence; advantages."""

    policy: Tensor
    sampler: Tensor
    reference: Tensor
    advantages: Tensor
    mask: Tensor


def random_numbers(seed: int) -> Numbers:
    generator = torch.Generator().manual_seed(seed)
    mask = (torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]).double()

    def near(other: Tensor | float) -> Tensor:
        return (other + 0.2 * torch.randn(mask.shape, generator=generator, dtype=torch.float64)) * mask

    policy = near(-2.0)
    advantages = torch.randn(len(LENGTHS), generator=generator, dtype=torch.float64)
    advantages[3] = 0.0
    return Numbers(policy, near(policy), near(policy), advantages, mask)


def our_loss(case: Case, numbers: Numbers, policy: Tensor) -> Tensor:
    """The loss of a step on one batch, as the training loop sums it."""
    source = Rollouts.model_validate(
        {"kind": "rollouts", "prompts": 2, "group": len(LENGTHS) // 2, "max_new_tokens": LONGEST}
    )
    objective = (
        TypeAdapter(Annotated[Objective, ByKind()])
        .validate_python({"source": "own"} | case.ours)
        .build(source, hidden_size=1)
    )
    rows = zip(LENGTHS, numbers.sampler.tolist(), numbers.reference.tolist(), numbers.advantages.tolist(), strict=True)
    examples = [
        Example([0] * (1 + n), 1, sampler[:n], advantage, {"log_probs of reference": reference[:n]})
        for n, sampler, reference, advantage in rows
    ]
    batch = TokenBatch.of(examples, 0, torch.device("cpu"))
    values = policy[numbers.mask.bool()]
    return (objective.token_weights(batch) * objective.token_loss(values, batch)).sum() / objective.normaliser(examples)


class NumbersForAModel:
    """What stands in TRL's trainers for the model's pass, and for accelerate in a single process."""

    num_processes = 1
    sync_gradients = True

    def __init__(self, policy: Tensor) -> None:
        self.policy = policy

    def log_probs(self, *_: Any, **__: Any) -> tuple[Tensor, Tensor, None]:
        return self.policy, torch.zeros_like(self.policy), None

    def gather(self, value: Tensor) -> Tensor:
        return value

    def reduce(self, value: Tensor, reduction: str = "sum") -> Tensor:
        return value


def their_loss(case: Case, numbers: Numbers, policy: Tensor) -> Tensor:
    """TRL's `_compute_loss` on the same numbers."""
    stand_in = NumbersForAModel(policy)
    trainer: Any = case.trainer.__new__(case.trainer)
    settings = {
        "loss_type": None,
        "importance_sampling_level": "token",
        "epsilon_low": 0.2,
        "epsilon_high": 0.2,
        "beta": 0.0,
        "max_completion_length": LONGEST,
        "current_gradient_accumulation_steps": 1,
        "top_entropy_quantile": 1.0,
        "off_policy_mask_threshold": None,
        "use_vllm": False,
        "aux_loss_enabled": False,
        "_entropy_bonus_enabled": False,
        "_metrics": {"train": defaultdict(list)},
        "model": SimpleNamespace(training=True),
        "accelerator": stand_in,
        "args": SimpleNamespace(delta=None, use_bias_correction_kl=False, steps_per_generation=1),
    }
    for name, value in (settings | case.theirs).items():
        setattr(trainer, name, value)
    trainer._get_per_token_logps_and_entropies = stand_in.log_probs
    ids = torch.zeros(numbers.mask.shape, dtype=torch.long)
    inputs = {
        "prompt_ids": ids[:, :1],
        "prompt_mask": ids[:, :1],
        "completion_ids": ids,
        "completion_mask": numbers.mask,
        "advantages": numbers.advantages,
        "old_per_token_logps": numbers.sampler,
        "old_logps": (numbers.sampler * numbers.mask).sum(1),
        "ref_per_token_logps": numbers.reference,
        "num_items_in_batch": numbers.mask.sum(),
    }
    return trainer._compute_loss(None, inputs)


def main() -> int:
    torch.set_default_dtype(torch.float64)
    print(f"TRL {trl.__version__}; relative differences over three draws")
    print(f"{'algorithm':<12}{'ours':>14}{'TRL':>14}{'loss':>10}{'gradient':>10}")
    worst = 0.0
    for name, case in CASES.items():
        for seed in range(3):
            numbers = random_numbers(seed)
            policy = numbers.policy.clone().requires_grad_()
            ours, theirs = our_loss(case, numbers, policy), their_loss(case, numbers, policy)
            (mine,), (other,) = torch.autograd.grad(ours, policy), torch.autograd.grad(theirs, policy)
            loss = float(((ours - theirs) / theirs).abs().detach())
            gradient = float((mine - other).norm() / other.norm())
            worst = max(worst, loss, gradient)
            print(
                f"{name:<12}{float(ours.detach()):>14.9f}{float(theirs.detach()):>14.9f}{loss:>10.1e}{gradient:>10.1e}"
            )
    print(f"largest difference {worst:.1e}, allowed {TOLERANCE:.0e}")
    return int(worst > TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
