"""What a rollout engine is: prompts in, completions with their log-probabilities out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Sampling:
    """How completions are drawn. `temperature` 0 is greedy. A token of `stop` or the length limit ends generation."""

    temperature: float
    max_new_tokens: int
    stop: tuple[int, ...]


@dataclass(frozen=True)
class Completion:
    """Token ids (the stop token included), log-probability of each at the sampling temperature, and how it ended."""

    tokens: list[int]
    log_probs: list[float]
    truncated: bool


class Engine(Protocol):
    """Generates one completion for each prompt, in order."""

    def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, seeds: Sequence[int] | None = None
    ) -> list[Completion]:
        """`seeds` gives each completion its own random stream; greedy sampling needs none."""
        ...
