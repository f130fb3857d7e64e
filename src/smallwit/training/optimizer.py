"""Optimizers of a stage, and their learning-rate schedule."""

import math
from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from smallwit.training.muon import Muon
from smallwit.training.settings import Optimizer


def make_optimizers(
    model: PreTrainedModel, spec: Optimizer, extra_parameters: Sequence[torch.nn.Parameter] = ()
) -> list[torch.optim.Optimizer]:
    """Return AdamW for everything, or Muon for the layers' matrices and AdamW for all others.

    Parameter groups hold their `peak` learning rate. AdamW has the `extra_parameters`, which are not the model's.
    """
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    tables = {id(module.weight) for module in model.modules() if isinstance(module, torch.nn.Embedding)}
    tables.add(id(model.get_output_embeddings().weight))
    matrices = [p for _, p in trained if p.dim() == 2 and id(p) not in tables]
    by_muon = {id(p) for p in matrices} if spec.kind == "muon" else set()
    rest = [*(p for _, p in trained if id(p) not in by_muon), *extra_parameters]
    groups = [
        {"params": [p for p in rest if p.dim() >= 2], "weight_decay": spec.weight_decay},
        {"params": [p for p in rest if p.dim() < 2], "weight_decay": 0.0},
    ]
    filled = [group | {"peak": spec.lr} for group in groups if group["params"]]
    optimizers: list[torch.optim.Optimizer] = []
    if filled:
        optimizers.append(torch.optim.AdamW(filled, lr=spec.lr, betas=spec.betas, fused=True))
    if by_muon:
        peak = spec.matrix_lr or spec.lr
        optimizers.append(Muon(matrices, lr=peak, weight_decay=spec.weight_decay))
        optimizers[-1].param_groups[0]["peak"] = peak
    return optimizers


def rate_share(spec: Optimizer, progress: float) -> float:
    """Return the share of the peak rate at `progress` (0..1) of the budget: a linear warmup, then `schedule`."""
    if progress < spec.warmup:
        # The first step has progress 0 and must still learn.
        return max(progress / spec.warmup, 0.01)
    done = min((progress - spec.warmup) / max(1.0 - spec.warmup, 1e-9), 1.0)
    if spec.schedule == "constant":
        return 1.0
    if spec.schedule == "wsd":
        done = max(0.0, 1.0 - (1.0 - min(progress, 1.0)) / spec.decay)
    share = 0.5 * (1 + math.cos(math.pi * done)) if spec.schedule == "cosine" else 1.0 - done
    return spec.final + (1 - spec.final) * share
