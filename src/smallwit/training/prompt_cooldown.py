"""Prompt cooldown: problems without a signal are not drawn for a number of batches."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor

from smallwit.objectives.advantages import has_signal
from smallwit.tasks.base import Problem, Task

Pair = tuple[Task, Problem]


class Stream(Protocol):
    """Problems in an order; `size` of them are different."""

    size: int

    def __getitem__(self, index: int) -> Pair: ...


class PromptCooldown:
    """Draws the problems of each batch of rollouts and skips those that are cooling down.

    A problem cools down for `batches` batches when all of its completions had the same reward, for example when all
    were right. Then it is drawn again, because the student may have changed. The draw depends on earlier rewards:
    checkpoints have the `state`.
    """

    def __init__(self, batches: int) -> None:
        self.batches = batches
        self.next = 0
        self.until: dict[str, int] = {}

    def take(self, stream: Stream, batch: int, count: int) -> list[Pair]:
        """Return the next `count` problems of the stream for this batch. If all are cooling down, none is skipped."""
        pairs: list[Pair] = []
        skipped = 0
        while len(pairs) < count:
            pair = stream[self.next]
            self.next += 1
            if self.until.get(_name(pair), 0) > batch and skipped < stream.size:
                skipped += 1
            else:
                pairs.append(pair)
        return pairs

    def note(self, pairs: Sequence[Pair], rewards: Tensor, batch: int) -> None:
        """Start the cooldown of problems with equal rewards (`[P, G]`), unless one of their rewards is unknown."""
        self.until = {name: until for name, until in self.until.items() if until > batch}
        alike = ~has_signal(rewards) & ~rewards.isnan().any(1)
        for pair, equal in zip(pairs, alike.tolist(), strict=True):
            if equal:
                self.until[_name(pair)] = batch + 1 + self.batches

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint needs."""
        return {"next": self.next, "until": dict(self.until)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from the `state` of a checkpoint."""
        self.next, self.until = state["next"], dict(state["until"])


def _name(pair: Pair) -> str:
    return f"{pair[0].name}\x1f{pair[1].id}"
