"""DAPO's penalty on long responses."""

from typing import Literal

from pydantic import Field, PositiveInt

from smallwit.training.reward_part import RewardPart, Rollout


class OverlongPenalty(RewardPart):
    """DAPO's soft overlong punishment (arXiv 2503.14476, eq. 13).

    0 up to `max_new_tokens` - `cache` tokens, then falling to -1 at `max_new_tokens`.
    """

    kind: Literal["overlong"]
    cache: PositiveInt = Field(description="tokens below max_new_tokens at which the penalty begins")

    def check_source(self, max_new_tokens: int) -> None:
        if self.cache > max_new_tokens:
            limit = f"max_new_tokens is {max_new_tokens}"
            raise ValueError(f"the reward overlong has a cache of {self.cache} tokens, and {limit}; make it smaller")

    def compute(self, rollout: Rollout) -> float:
        return overlong_penalty(rollout.tokens, rollout.max_new_tokens, self.cache)


def overlong_penalty(tokens: int, max_new_tokens: int, cache: int) -> float:
    """Return the penalty of a response: 0 up to `max_new_tokens - cache` tokens, -1 at `max_new_tokens`."""
    return min(0.0, max(-1.0, (max_new_tokens - cache - tokens) / cache))
