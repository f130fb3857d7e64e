"""The user's own reward function."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from pydantic import Field

from smallwit.tasks.reward_function import reward_function
from smallwit.training.reward_part import UNKNOWN, Rollout, VerdictReward


class FunctionReward(VerdictReward):
    """The user's own `function(problem, response, verdict) -> float`."""

    kind: Literal["function"]
    function: str = Field(description="path/to/file.py:function, relative to the recipe")

    @property
    def name(self) -> str:
        return self.function

    @property
    def user_function(self) -> str | None:
        return self.function

    def load(self, base: Path | None) -> Callable[[Rollout], float]:
        function = reward_function(self.function, base)

        def compute(rollout: Rollout) -> float:
            verdict = rollout.verdict
            assert verdict is not None  # the part reads it
            if verdict.reason == "limit":
                return 0.0
            known = verdict.strict is not None and verdict.score is not None
            return function(rollout.problem, rollout.response, verdict) if known else UNKNOWN

        return compute
