"""Seconds that each divergence takes for the value and the gradient of one chunk of tokens on a real vocabulary.

OMP_NUM_THREADS=1 python benchmarks/divergences.py
"""

import time
from collections.abc import Callable

import torch

from smallwit.objectives.divergence import DivergenceStatistic
from smallwit.objectives.head import CHUNK_ELEMENTS
from smallwit.objectives.kinds.divergences import (
    AdaptiveKL,
    ForwardKL,
    JensenShannon,
    ReverseKL,
    SkewForwardKL,
    TotalVariation,
)
from smallwit.objectives.teacher import TeacherHead

VOCABULARY, HIDDEN, RUNS = 151_936, 256, 4
TOKENS = CHUNK_ELEMENTS // VOCABULARY


def least(work: Callable[[], object]) -> float:
    """The seconds of the fastest of some runs."""
    seconds = []
    for _ in range(RUNS):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def main() -> None:
    """Print one line a divergence."""
    torch.manual_seed(0)
    log_probs = torch.log_softmax(torch.randn(TOKENS, HIDDEN) @ torch.randn(HIDDEN, VOCABULARY) / 10, 1)
    teacher = TeacherHead(torch.randn(TOKENS, HIDDEN), torch.randn(VOCABULARY, HIDDEN) / 10, VOCABULARY)
    tokens, upstream = slice(0, TOKENS), torch.rand(TOKENS)
    divergences = (
        ForwardKL.make(),
        ReverseKL.make(),
        JensenShannon.make(beta=0.5),
        SkewForwardKL.make(alpha=0.1),
        AdaptiveKL.make(),
        TotalVariation.make(),
    )
    views = {type(each).__name__: DivergenceStatistic(each, teacher) for each in divergences}
    views["ForwardKL on 64"] = DivergenceStatistic(
        ForwardKL.make(), teacher.top_k(64, 1.0, chunk_elements=CHUNK_ELEMENTS)
    )
    for name, view in views.items():
        value = least(lambda view=view: view.evaluate(log_probs, tokens, None))  # type: ignore[misc]
        both = least(lambda view=view: view.evaluate(log_probs, tokens, None)[1](upstream))  # type: ignore[misc]
        print(f"{name:18} value {value:.2f} s  value and gradient {both:.2f} s")


if __name__ == "__main__":
    main()
