"""Seeded variants of the kinds of answers that a math grader gets wrong, each with its truth."""

import random
from collections.abc import Iterator

import math_variants_claims
import math_variants_formulas


def variants(seed: int, each: int) -> Iterator[tuple[str, str, str, float]]:
    """`each` draws of every kind, as `(kind, gold, response, truth)`; a draw gives one or more rows.

    Every kind is a function of a random stream: other numbers, letters and spellings at each call. Truth is 1.0 or 0.0.
    """
    for make in (*math_variants_claims.KINDS, *math_variants_formulas.KINDS):
        stream = random.Random(f"{seed} {make.__name__}")
        for _ in range(each):
            for gold, response, truth in make(stream):
                yield make.__name__, gold, response, truth
