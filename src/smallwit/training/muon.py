"""Muon: momentum with orthogonalised matrix updates (Jordan et al. 2024, kellerjordan.github.io/posts/muon).

`torch.optim.Muon` orthogonalises in bfloat16, which CPUs emulate. This one works in the precision of the weights, and
processes all matrices of one shape in one batched product.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic iteration, with the steepest slope at zero: singular values end in 0.7..1.2."""


def orthogonalise(matrices: Tensor, iterations: int = 5) -> Tensor:
    """Return approximately the nearest (semi-)orthogonal matrices to `matrices` `[K, m, n]` (Newton-Schulz)."""
    a, b, c = COEFFICIENTS
    wide = matrices.shape[1] <= matrices.shape[2]
    x = matrices if wide else matrices.mT
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(iterations):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if wide else x.mT


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised and scaled to the size of an AdamW update (Liu et al. 2025, arXiv 2502.16982).

    Only for matrices. `lr` and `weight_decay` have the same meaning as for AdamW.
    """

    def __init__(self, parameters: Iterable[Tensor], lr: float, momentum: float = 0.95, weight_decay: float = 0.0):
        matrices = list(parameters)
        if any(parameter.dim() != 2 for parameter in matrices):
            raise ValueError("Muon updates matrices; give vectors and tables to AdamW")
        super().__init__(matrices, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update every matrix that has a gradient."""
        for group in self.param_groups:
            shapes: dict[torch.Size, list[Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    shapes.setdefault(parameter.shape, []).append(parameter)
            for shape, parameters in shapes.items():
                updates = torch.stack([self._momentum(parameter, group["momentum"]) for parameter in parameters])
                size = 0.2 * max(shape) ** 0.5 * group["lr"]
                for parameter, update in zip(parameters, orthogonalise(updates), strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"]).sub_(update, alpha=size)

    def _momentum(self, parameter: Tensor, momentum: float) -> Tensor:
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        average: Tensor = state["momentum"]
        average.lerp_(parameter.grad, 1 - momentum)  # type: ignore[arg-type]
        return parameter.grad.lerp(average, momentum)  # type: ignore[union-attr]
