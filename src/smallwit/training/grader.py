"""The reward of completions: a weighted sum of parts, most of which read the verifier's verdict.

A reward that is not known is NaN, and training leaves NaN out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from smallwit.inference.engine import Completion
from smallwit.tasks.base import Problem, Task
from smallwit.training.reward_part import RewardPart, Rollout
from smallwit.verify import Verdict
from smallwit.verify.failures import with_retry


@dataclass(frozen=True)
class Rewards:
    """The weighted sum `[P, G]`, NaN where not known, and each part `[P, G]` before its weight."""

    total: Tensor
    parts: dict[str, Tensor]


class Grader:
    """Computes the rewards of completions of at most `max_new_tokens` tokens.

    `base` is the folder that the user's files are relative to.
    """

    def __init__(self, parts: Sequence[RewardPart], max_new_tokens: int, base: Path | None = None) -> None:
        self.parts, self.max_new_tokens = parts, max_new_tokens
        self.functions = [part.load(base) for part in parts]
        self.reads_verdict = any(part.reads_verdict for part in parts)

    def grade(
        self,
        pairs: Sequence[tuple[Task, Problem]],
        responses: Sequence[str],
        completions: Sequence[Completion],
        verdicts: Sequence[Verdict | None] | None = None,
    ) -> Rewards:
        """Return the rewards of the same number of responses to each of the `pairs`, in order.

        Responses whose `verdicts` are not given are judged, if a part reads them.
        """
        group = len(responses) // len(pairs)
        problems = [problem for _, problem in pairs for _ in range(group)]
        if verdicts is None and self.reads_verdict:
            verdicts = judge([task for task, _ in pairs for _ in range(group)], problems, responses)
        verdicts = verdicts or [None] * len(responses)
        rollouts = [
            Rollout(problem, response, len(completion.tokens), self.max_new_tokens, verdict)
            for problem, response, completion, verdict in zip(problems, responses, completions, verdicts, strict=True)
        ]
        parts = {}
        for part, function in zip(self.parts, self.functions, strict=True):
            rewards = [function(rollout) for rollout in rollouts]
            parts[part.name] = torch.tensor(rewards, dtype=torch.float64).view(len(pairs), group)
        weighted = [part.weight * values for part, values in zip(self.parts, parts.values(), strict=True)]
        return Rewards(torch.stack(weighted).sum(0).float(), parts)


def judge(tasks: Sequence[Task], problems: Sequence[Problem], responses: Sequence[str]) -> list[Verdict]:
    """Return a verdict for each response. Each task judges its own responses in one batch."""
    found: dict[int, Verdict] = {}
    for task in {task.name: task for task in tasks}.values():
        rows = [row for row, owner in enumerate(tasks) if owner is task]
        verdicts = with_retry(task.judge, [(problems[row], responses[row]) for row in rows])
        found.update(zip(rows, verdicts, strict=True))
    return [found[row] for row in range(len(responses))]
