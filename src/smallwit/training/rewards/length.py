"""A reward for length, with which random weights get a signal."""

from typing import Literal

from smallwit.training.reward_part import RewardPart, Rollout


class LengthReward(RewardPart):
    """The number of characters of the response: a reward that random weights can earn, as `--smoke` needs."""

    kind: Literal["length"]

    def compute(self, rollout: Rollout) -> float:
        return float(len(rollout.response))
