"""smallwit's divergences against TRL's `GKDTrainer.generalized_jsd_loss`, values and gradients, on random logits.

    python benchmarks/compare_trl_distillation.py

Needs TRL 1.16, which smallwit itself does not. Ends with status 1 when a value differs by more than 1e-5
or a gradient by more than 1e-4 of its norm, both relative.
"""

import sys

import torch
from torch import Tensor
from trl.experimental.gkd import GKDTrainer  # type: ignore[import-not-found]

from smallwit.objectives.distillation import Divergence
from smallwit.objectives.divergence import DivergenceStatistic
from smallwit.objectives.head import token_statistics
from smallwit.objectives.kinds.divergences import ForwardKL, JensenShannon, ReverseKL
from smallwit.objectives.teacher import TeacherHead

ROWS, LENGTH, HIDDEN, VOCABULARY = 3, 17, 32, 1009


def divergence(beta: float) -> Divergence:
    """TRL takes the two ends of beta for the two KL divergences, which smallwit names."""
    return ForwardKL.make() if beta == 0 else ReverseKL.make() if beta == 1 else JensenShannon.make(beta=beta)


def ours(hidden: Tensor, weight: Tensor, teacher: TeacherHead, mask: Tensor, beta: float, temperature: float) -> Tensor:
    """The mean over the tokens of the mask."""
    chosen = mask.flatten()
    head = TeacherHead(teacher.hidden[chosen], teacher.weight, VOCABULARY)
    view = DivergenceStatistic(divergence(beta), head, temperature)
    (values,) = token_statistics(hidden[chosen], weight, [view], chunk_elements=7 * VOCABULARY)
    return values.mean()


def theirs(
    hidden: Tensor, weight: Tensor, teacher: TeacherHead, mask: Tensor, beta: float, temperature: float
) -> Tensor:
    """TRL's mean over the tokens whose label is not -100."""
    student_logits = (hidden @ weight.T).view(ROWS, LENGTH, VOCABULARY)
    teacher_logits = (teacher.hidden @ teacher.weight.T).view(ROWS, LENGTH, VOCABULARY)
    labels = torch.where(mask, 1, -100)
    return GKDTrainer.generalized_jsd_loss(student_logits, teacher_logits, labels, beta, temperature)


def main() -> int:
    """Print one line a setting; the status is 1 if any differs."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    hidden, weight = normal(ROWS * LENGTH, HIDDEN).requires_grad_(), (normal(VOCABULARY, HIDDEN) / 3).requires_grad_()
    teacher = TeacherHead(normal(ROWS * LENGTH, 2 * HIDDEN), normal(VOCABULARY, 2 * HIDDEN) / 5, VOCABULARY)
    mask = torch.rand(ROWS, LENGTH, generator=generator) < 0.7
    failed = False
    for beta in (0.0, 0.1, 0.5, 0.9, 1.0):
        for temperature in (1.0, 2.0):
            losses = [loss(hidden, weight, teacher, mask, beta, temperature) for loss in (ours, theirs)]
            gradients = [torch.autograd.grad(loss, [hidden, weight]) for loss in losses]
            value = abs(float(losses[0].detach() - losses[1].detach())) / abs(float(losses[1].detach()))
            gradient = max(float((a - b).norm() / b.norm()) for a, b in zip(*gradients, strict=True))
            failed |= value > 1e-5 or gradient > 1e-4
            print(f"beta {beta:g} temperature {temperature:g}: value {value:.1e}, gradient {gradient:.1e} apart")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
