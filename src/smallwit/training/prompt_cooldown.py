"""A curriculum for rollouts: a problem that has nothing to teach at present sits out for a while."""

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


class Resting:
    """Chooses the problems of each batch of rollouts, passing over those that rest.

    A problem rests for `rest` batches after all of its completions were paid alike, as when all were right or all
    wrong; then it is asked again, for the student may have changed. The choice depends on what the student has
    answered: `state` is a part of what training remembers.
    """

    def __init__(self, rest: int) -> None:
        self.rest = rest
        self.next = 0
        self.until: dict[str, int] = {}

    def take(self, stream: Stream, batch: int, count: int) -> list[Pair]:
        """The next `count` problems of the stream for this batch. Where all rest, they are taken all the same."""
        pairs: list[Pair] = []
        passed = 0
        while len(pairs) < count:
            pair = stream[self.next]
            self.next += 1
            if self.until.get(_name(pair), 0) > batch and passed < stream.size:
                passed += 1
            else:
                pairs.append(pair)
        return pairs

    def note(self, pairs: Sequence[Pair], rewards: Tensor, batch: int) -> None:
        """Let the problems rest whose rewards (`[P, G]`) do not differ. Those with an unknown reward do not."""
        self.until = {name: until for name, until in self.until.items() if until > batch}
        alike = ~has_signal(rewards) & ~rewards.isnan().any(1)
        for pair, rests in zip(pairs, alike.tolist(), strict=True):
            if rests:
                self.until[_name(pair)] = batch + 1 + self.rest

    def state(self) -> dict[str, Any]:
        """What goes into a checkpoint."""
        return {"next": self.next, "until": dict(self.until)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint's `state`."""
        self.next, self.until = state["next"], dict(state["until"])


def _name(pair: Pair) -> str:
    return f"{pair[0].name}\x1f{pair[1].id}"
