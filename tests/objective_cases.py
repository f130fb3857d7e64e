"""Random inputs of one step, and what an objective is compared with."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any

import torch
from pydantic import TypeAdapter
from torch import Tensor

from smallwit.objectives.head import TokenStatistic
from smallwit.objectives.settings import Objective
from smallwit.objectives.teacher import TeacherHead
from smallwit.recipe.section import ByKind

# The student has 97 rows and the teacher 128, of which both use the first 90: the rest is padding.
ROWS, TEACHER_ROWS, VOCABULARY = 97, 128, 90
LENGTHS = (1, 9, 4, 2, 7)
TOKENS = sum(LENGTHS)
CHUNK = 5 * ROWS


@dataclass
class Inputs:
    """Random inputs of one step: `weights` holds m >= 0, some of them zero; sequences are of different lengths."""

    hidden: Tensor
    weight: Tensor
    labels: Tensor
    teacher: TeacherHead
    weights: Tensor
    old_log_probs: Tensor
    advantages: Tensor

    def part(self, tokens: slice) -> "Inputs":
        """What a loss reads of some of the tokens."""
        return replace(self, old_log_probs=self.old_log_probs[tokens], advantages=self.advantages[tokens])

    def teacher_logits(self) -> Tensor:
        return self.teacher.hidden.double() @ self.teacher.weight.double()[:VOCABULARY].T


def random_inputs(seed: int) -> Inputs:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    weights = torch.rand(TOKENS, generator=generator) * (torch.arange(TOKENS) % 3 > 0)
    labels = torch.randint(VOCABULARY, (TOKENS,), generator=generator)
    hidden, weight = normal(TOKENS, 16), normal(ROWS, 16) / 2
    log_probs = torch.log_softmax(hidden @ weight.T, 1).gather(1, labels[:, None]).squeeze(1)
    return Inputs(
        hidden,
        weight,
        labels,
        TeacherHead(normal(TOKENS, 24), normal(TEACHER_ROWS, 24) / 3, VOCABULARY),
        weights,
        old_log_probs=log_probs + 0.4 * normal(TOKENS),
        advantages=normal(len(LENGTHS))[torch.repeat_interleave(torch.arange(len(LENGTHS)), torch.tensor(LENGTHS))],
    )


def parse_objective(entry: dict[str, Any]) -> Objective:
    """An objective from an entry of a recipe."""
    objective: Objective = TypeAdapter(Annotated[Objective, ByKind()]).validate_python(entry)
    return objective


Loss = Callable[[Tensor, Inputs], Tensor]


@dataclass
class Case:
    """An objective as smallwit has it (a view and the loss on its values), and the same on full logits `[N, V]`."""

    view: Callable[[Inputs], TokenStatistic]
    loss: Loss
    reference: Loss
    exact: bool = True
    """Whether the gradient is the derivative of the value: some treat a part of it as a constant."""


def reference_log_prob(logits: Tensor, inputs: Inputs, temperature: float = 1.0) -> Tensor:
    return torch.log_softmax(logits / temperature, 1)[torch.arange(len(logits)), inputs.labels]
