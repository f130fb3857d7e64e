"""What the matrix products of a run of `make bench-rollout` take alone: FOLDER DTYPE WORK, the model, its
number format, and `Work` as JSON.

Every linear layer and the head are multiplied with random rows, as many as our engine's steps had, with the model's own
weights. Prints the seconds of the whole run as `torch.mm(x, W.T)` (`mm`), and in the fastest of three forms, chosen for
each shape and number of rows (`fastest`). Attention, norms, embeddings, sampling and Python are left out.
"""

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from smallwit.models.head import output_head
from smallwit.training.families import load_supported_model

PREFILL = 256
"""Rows of the products by which prompts are counted."""
SECONDS = 0.1
"""The least time of a measurement."""
FORMS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mm": lambda x, weight: torch.mm(x, weight.T),
    "turned": lambda x, weight: torch.mm(weight, x.T),
    "onednn": lambda x, weight: torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], ""),
}


@dataclass(frozen=True)
class Work:
    """The tokens that each step wrote, the prompts, and their tokens (what all of them begin with counts once)."""

    rows: list[int]
    prompts: int
    prompt_tokens: int


@dataclass(frozen=True)
class Seconds:
    """Seconds of a pass through matrices at some numbers of rows, ascending."""

    rows: list[int]
    seconds: list[float]

    def at(self, rows: float) -> float:
        """Return the seconds at a number of rows: between two of the list on a line, beyond the last in proportion."""
        within = float(np.interp(min(rows, self.rows[-1]), self.rows, self.seconds))
        return within * max(rows / self.rows[-1], 1.0)


def work_of(prompts: Sequence[Sequence[int]], rows: Sequence[int]) -> Work:
    """Return the work of a run whose steps wrote so many tokens."""
    first, last = min(map(tuple, prompts)), max(map(tuple, prompts))
    most = min(len(first), len(last))
    shared = next((i for i in range(most) if first[i] != last[i]), most)
    return Work(list(rows), len(prompts), sum(map(len, prompts)) - shared * (len(prompts) - 1))


def products_alone(work: Work, layers: Seconds, head: Seconds) -> float:
    """Return the seconds of a run. Every token passes the head; the first of each prompt needs no pass of its own
    through the layers, because it follows from the prompt's last token."""
    decoded = sum(layers.at(rows) for rows in work.rows) * (1 - work.prompts / sum(work.rows))
    return decoded + sum(head.at(rows) for rows in work.rows) + layers.at(PREFILL) * work.prompt_tokens / PREFILL


def grid(most: int) -> list[int]:
    """Return the numbers of rows that are measured: powers of two, what lies halfway between two, and the largest."""
    powers = [2**i for i in range(most.bit_length())]
    return sorted({rows for power in powers for rows in (power, power * 3 // 2) if rows < most} | {most, PREFILL})


def measure(matrices: Sequence[Tensor], counts: Sequence[int]) -> dict[str, Seconds]:
    """Return the seconds of a pass through the matrices, as `mm` and in the fastest form of each shape."""
    shapes: dict[torch.Size, list[Tensor]] = {}
    for matrix in matrices:
        shapes.setdefault(matrix.shape, []).append(matrix)
    plain, fastest = [0.0] * len(counts), [0.0] * len(counts)
    for same in shapes.values():
        for place, rows in enumerate(counts):
            found = {name: _best(form, _random(rows, same[0]), same) for name, form in FORMS.items()}
            plain[place] += found["mm"]
            fastest[place] += min(found.values())
    return {"mm": Seconds(list(counts), plain), "fastest": Seconds(list(counts), fastest)}


def _random(rows: int, weight: Tensor) -> Tensor:
    return torch.randn(rows, weight.shape[1]).to(weight.dtype)


def _best(form: Callable[[Tensor, Tensor], Tensor], x: Tensor, weights: Sequence[Tensor]) -> float:
    """Return the seconds of the fastest of several passes, at least two."""
    passes: list[float] = []
    while len(passes) < 2 or sum(passes) < SECONDS:
        started = time.perf_counter()
        for weight in weights:
            form(x, weight)
        passes.append(time.perf_counter() - started)
    return min(passes)


@torch.no_grad()
def main(folder: Path, dtype: str, work: Work) -> None:
    """Measure, and print the seconds."""
    model: Any = load_supported_model(folder, dtype=dtype, device="cpu")
    head = output_head(model).weight
    layers = [module.weight for module in model.modules() if isinstance(module, torch.nn.Linear)]
    counts = grid(max(work.rows))
    body = measure([weight for weight in layers if weight is not head], counts)
    last = measure([head], counts)
    print(json.dumps({form: products_alone(work, body[form], last[form]) for form in body}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Work(**json.loads(sys.argv[3])))
