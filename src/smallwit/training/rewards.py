"""What a completion earns: a weighted sum of parts, most of which read the verifier's verdict.

The reward of a response whose verdict is not known is NaN, and NaN is masked in training. One that exceeded a limit
earns 0 by every part that reads the verdict: a policy must gain nothing by crashing its grader.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from smallwit.inference.engine import Completion
from smallwit.recipe.rewards import FunctionReward, Overlong, ResponseReward, RewardPart
from smallwit.tasks.base import Problem, Task
from smallwit.tasks.reward_function import reward_function
from smallwit.verify import Verdict

UNKNOWN = math.nan


@dataclass(frozen=True)
class Rewards:
    """The weighted sum `[P, G]`, NaN where not known, and each part `[P, G]` before its weight."""

    total: Tensor
    parts: dict[str, Tensor]


class Grader:
    """Pays completions by the parts that a recipe lists.

    `longest` is the most tokens that a completion may have, `base` the folder that the user's files are relative to.
    """

    def __init__(self, parts: Sequence[RewardPart], longest: int, base: Path | None = None) -> None:
        self.parts, self.longest = parts, longest
        self.functions = {
            part.function: reward_function(part.function, base) for part in parts if isinstance(part, FunctionReward)
        }
        self.verified = any(_reads_verdict(part) for part in parts)

    def grade(
        self, pairs: Sequence[tuple[Task, Problem]], responses: Sequence[str], completions: Sequence[Completion]
    ) -> Rewards:
        """The rewards of the same number of responses to each of the `pairs`, in order."""
        group = len(responses) // len(pairs)
        problems = [problem for _, problem in pairs for _ in range(group)]
        verdicts: Sequence[Verdict | None] = [None] * len(responses)
        if self.verified:
            verdicts = _verdicts([task for task, _ in pairs for _ in range(group)], problems, responses)
        parts = {}
        for part in self.parts:
            rows = zip(problems, responses, completions, verdicts, strict=True)
            paid = [self._pay(part, *row) for row in rows]
            parts[_name(part)] = torch.tensor(paid, dtype=torch.float64).view(len(pairs), group)
        weighted = [part.weight * values for part, values in zip(self.parts, parts.values(), strict=True)]
        return Rewards(torch.stack(weighted).sum(0).float(), parts)

    def _pay(
        self, part: RewardPart, problem: Problem, response: str, completion: Completion, verdict: Verdict | None
    ) -> float:
        if isinstance(part, Overlong):
            return overlong_penalty(len(completion.tokens), self.longest, part.cache)
        if not _reads_verdict(part):
            return float(len(response))
        assert verdict is not None  # some part reads it, so all were asked for
        if verdict.reason == "limit":
            return 0.0
        if isinstance(part, FunctionReward):
            known = verdict.strict is not None and verdict.score is not None
            return self.functions[part.function](problem, response, verdict) if known else UNKNOWN
        if part.kind == "score":
            return UNKNOWN if verdict.score is None else verdict.score
        if verdict.strict is None:
            return UNKNOWN
        return verdict.strict if part.kind == "strict" else float(verdict.formatted)


def overlong_penalty(tokens: int, longest: int, cache: int) -> float:
    """DAPO's soft overlong punishment (arXiv 2503.14476, eq. 13): 0 up to longest - cache tokens, -1 at longest."""
    return min(0.0, max(-1.0, (longest - cache - tokens) / cache))


def _reads_verdict(part: RewardPart) -> bool:
    return isinstance(part, FunctionReward) or (isinstance(part, ResponseReward) and part.kind != "length")


def _name(part: RewardPart) -> str:
    return part.function if isinstance(part, FunctionReward) else part.kind


def _verdicts(tasks: Sequence[Task], problems: Sequence[Problem], responses: Sequence[str]) -> list[Verdict]:
    """Each task judges its own responses in one batch."""
    found: dict[int, Verdict] = {}
    for task in {task.name: task for task in tasks}.values():
        rows = [row for row, owner in enumerate(tasks) if owner is task]
        verdicts = task.judge([(problems[row], responses[row]) for row in rows])
        found.update(zip(rows, verdicts, strict=True))
    return [found[row] for row in range(len(responses))]
