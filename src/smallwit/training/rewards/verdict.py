"""Rewards by the verifier's verdict."""

from typing import Literal

from smallwit.training.reward_part import VerdictReward
from smallwit.verify import Verdict


class StrictReward(VerdictReward):
    """1 for a right answer in the declared format, else 0."""

    kind: Literal["strict"]

    def of_verdict(self, verdict: Verdict) -> float | None:
        return verdict.strict


class ScoreReward(VerdictReward):
    """The verifier's lenient score: 1 for a right answer, in the declared format or not."""

    kind: Literal["score"]

    def of_verdict(self, verdict: Verdict) -> float | None:
        return verdict.score


class FormatReward(VerdictReward):
    """1 for any answer in the declared format, else 0."""

    kind: Literal["format"]

    def of_verdict(self, verdict: Verdict) -> float | None:
        return None if verdict.strict is None else float(verdict.formatted)
