"""The base class of the parts of a reward, and the reward of a source of rollouts: a weighted sum of parts."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field, PositiveFloat

from smallwit.recipe.section import ByKind, Section
from smallwit.tasks.base import Problem
from smallwit.verify import Verdict

UNKNOWN = math.nan


@dataclass(frozen=True)
class Rollout:
    """What a reward is computed from. The response has `tokens` of at most `max_new_tokens` tokens.

    `verdict` is `None` if no part of the reward reads it.
    """

    problem: Problem
    response: str
    tokens: int
    max_new_tokens: int
    verdict: Verdict | None


class RewardPart(Section):
    """Base class of the parts of a reward."""

    kinds_in: ClassVar[tuple[str, ...]] = ("smallwit.training.rewards",)
    reads_verdict: ClassVar[bool] = False

    kind: str = Field(description="name of the part")
    weight: PositiveFloat = Field(default=1.0, description="weight of the part in the sum")

    @property
    def name(self) -> str:
        """Name of the part in metrics. A reward has each name once."""
        return self.kind

    @property
    def user_function(self) -> str | None:
        """The user's own function that the part calls: `path/to/file.py:function`, relative to the recipe."""
        return None

    def check_source(self, max_new_tokens: int) -> None:
        """Raise `ValueError` for a part that does not suit completions of at most `max_new_tokens` tokens."""

    def load(self, base: Path | None) -> Callable[[Rollout], float]:
        """Return the function that computes the part; `base` is the folder that the user's files are relative to."""
        return self.compute

    def compute(self, rollout: Rollout) -> float:
        """Return the reward before its weight, NaN where it is not known."""
        raise NotImplementedError


class VerdictReward(RewardPart):
    """Base class of the parts that read the verifier's verdict.

    A response that exceeded a limit of the verifier earns 0: a policy must gain nothing by crashing its grader.
    """

    reads_verdict: ClassVar[bool] = True

    def compute(self, rollout: Rollout) -> float:
        assert rollout.verdict is not None  # the grader asks for verdicts if a part reads them
        if rollout.verdict.reason == "limit":
            return 0.0
        reward = self.of_verdict(rollout.verdict)
        return UNKNOWN if reward is None else reward

    def of_verdict(self, verdict: Verdict) -> float | None:
        """Return the reward of a verdict, `None` where it is not known."""
        raise NotImplementedError


def _as_list(value: Any) -> Any:
    """`strict` is short for a list of that one part."""
    return [{"kind": value}] if isinstance(value, str) else value


Reward = Annotated[list[Annotated[RewardPart, ByKind()]], BeforeValidator(_as_list), Field(min_length=1)]
"""A weighted sum of parts; the name of a single part is short for a list of it."""


def check_reward(parts: list[RewardPart], max_new_tokens: int) -> None:
    """Raise `ValueError` for parts with one name, and for one that does not suit the source."""
    names = [part.name for part in parts]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"the reward has {name} more than once; give it once, with the sum of the weights")
    for part in parts:
        part.check_source(max_new_tokens)
