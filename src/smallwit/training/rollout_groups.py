"""Groups of completions: what the student has written to the problems of a batch, and what it earned."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from smallwit.inference.engine import Completion
from smallwit.models.flops import Cost
from smallwit.objectives.advantages import has_signal
from smallwit.tasks.base import Problem, Task


@dataclass(frozen=True)
class Group:
    """The completions `[G]` of one problem, their rewards (NaN where not known), and the parts of the rewards."""

    completions: list[Completion]
    rewards: list[float]
    parts: dict[str, list[float]]


@dataclass(frozen=True)
class PosedProblems:
    """Problems of a batch, and their prompts `[P]`; `left_out` others leave no room in the context."""

    pairs: list[tuple[Task, Problem]]
    prompts: list[list[int]]
    left_out: int = 0

    def drawn(self, groups: Sequence[Group], size: int, parts: Sequence[str]) -> "DrawnGroups":
        """Return the groups, of `size` completions, that were written to these problems; their rewards have `parts`."""
        return DrawnGroups(
            self.pairs,
            self.prompts,
            [completion for group in groups for completion in group.completions],
            torch.tensor([group.rewards for group in groups]).view(-1, size),
            {n: torch.tensor([g.parts[n] for g in groups], dtype=torch.float64).view(-1, size) for n in parts},
            self.left_out,
        )


@dataclass(frozen=True)
class DrawnGroups:
    """Groups of completions: problems, prompts `[P]`, completions `[P * G]`, rewards and their parts `[P, G]`.

    `left_out` problems were drawn whose prompts leave no room in the context.
    """

    pairs: list[tuple[Task, Problem]]
    prompts: list[list[int]]
    completions: list[Completion]
    rewards: Tensor
    parts: dict[str, Tensor]
    left_out: int

    @property
    def taken(self) -> int:
        """Return the number of problems that were drawn."""
        return len(self.pairs) + self.left_out

    def merged(self, more: "DrawnGroups") -> "DrawnGroups":
        """Return these groups followed by `more`."""
        return DrawnGroups(
            self.pairs + more.pairs,
            self.prompts + more.prompts,
            self.completions + more.completions,
            torch.cat([self.rewards, more.rewards]),
            {name: torch.cat([part, more.parts[name]]) for name, part in self.parts.items()},
            self.left_out + more.left_out,
        )

    def with_signal(self) -> "DrawnGroups":
        """Return the groups with two known rewards that differ."""
        keep = has_signal(self.rewards)
        rows = keep.nonzero().flatten().tolist()
        group = self.rewards.shape[1]
        return DrawnGroups(
            [self.pairs[row] for row in rows],
            [self.prompts[row] for row in rows],
            [completion for row in rows for completion in self.completions[row * group : (row + 1) * group]],
            self.rewards[keep],
            {name: part[keep] for name, part in self.parts.items()},
            self.left_out,
        )

    def flops(self, cost: Cost) -> float:
        """Return the FLOPs of generation: a prompt counts once, a completion what its tokens add."""
        total, group = 0.0, self.rewards.shape[1]
        for row, prompt in enumerate(self.prompts):
            alone = cost.forward([len(prompt)], 1)
            total += alone
            for completion in self.completions[row * group : (row + 1) * group]:
                added = len(completion.tokens) - 1
                total += cost.forward([len(prompt) + added], 1 + added) - alone
        return total

    def metrics(self) -> dict[str, float]:
        """Return the metrics of a step. With rewards: their means, and the shares without a signal and unknown."""
        metrics = {"left_out": float(self.left_out)} if self.left_out else {}
        if not self.pairs:
            return metrics
        metrics |= {
            "length": float(np.mean([len(c.tokens) for c in self.completions])),
            "truncated": float(np.mean([c.truncated for c in self.completions])),
        }
        if not self.parts:
            return metrics
        known = ~self.rewards.isnan()
        metrics |= {
            "reward": float(self.rewards.nanmean()),
            "no_signal": float((~has_signal(self.rewards)).float().mean()),
            "unverified": float((~known).float().mean()),
        }
        for name in {task.name for task, _ in self.pairs}:
            rows = [row for row, (task, _) in enumerate(self.pairs) if task.name == name]
            if known[rows].any():
                metrics[f"reward/{name}"] = float(self.rewards[rows].nanmean())
        if len(self.parts) > 1:
            metrics |= {f"reward_part/{name}": float(part.nanmean()) for name, part in self.parts.items()}
        return metrics
