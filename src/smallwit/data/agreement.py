"""Agreement of independent samples: with a known answer, with the majority, or of programs when they are run."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from smallwit.data.reply_parsing import TestCase
from smallwit.tasks.base import Problem, Task
from smallwit.verify.code import CodeJob, judge_code

_CPU_SECONDS = 2.0
"""CPU time of one program on one test."""


@dataclass(frozen=True)
class Agreement:
    """The gold answer that samples agree on, the indices of these samples, and their share of all samples (0..1)."""

    gold: Any
    indices: list[int]
    share: float


def agree_on_gold(task: Task, problem: Problem, responses: Sequence[str]) -> Agreement:
    """Return the samples that the task's verifier accepts in the declared format.

    Samples without a verdict are left out of the share.
    """
    verdicts = task.judge([(problem, response) for response in responses])
    indices = [index for index, verdict in enumerate(verdicts) if verdict.strict == 1.0]
    known = sum(verdict.strict is not None for verdict in verdicts)
    return Agreement(problem.gold, indices, len(indices) / known if known else 0.0)


def agree_on_majority(task: Task, problem: Problem, responses: Sequence[str]) -> Agreement:
    """Return the answer of most samples in the declared format as gold (self-consistency, Wang et al. 2022, arXiv
    2203.11171).

    The task's verifier decides which answers are equal: it tries each answer as the gold answer, the most frequent
    first, and a later one wins only with more samples. The gold answer of `problem` is ignored.
    """
    blank = replace(problem, gold="0")
    readings = task.judge([(blank, response) for response in responses])
    written = Counter(v.answer for v in readings if v.answer is not None and v.formatted)
    best = Agreement(None, [], 0.0)
    for answer, _ in written.most_common():
        agreed = agree_on_gold(task, replace(problem, gold=answer), responses)
        if len(agreed.indices) > len(best.indices):
            best = agreed
    return best


def agree_by_running(
    prompt: str, entry_point: str, programs: Sequence[str], cases: Sequence[TestCase], *, isolation: str | None = None
) -> Agreement:
    """Return the programs that agree with each other on the most test cases (dual agreement of CodeT, Chen et al. 2022,
    arXiv 2207.10397): the group that passes the same cases, with the most programs times cases.

    The gold answer is the list of these cases; it is empty when no program passes a case.
    """
    jobs = [CodeJob(prompt, entry_point, program, cases=[case]) for program in programs for case in cases]
    verdicts = judge_code(jobs, cpu_seconds=_CPU_SECONDS, isolation=isolation)
    groups: dict[tuple[int, ...], list[int]] = {}
    for index in range(len(programs)):
        row = verdicts[index * len(cases) : (index + 1) * len(cases)]
        passed = tuple(number for number, verdict in enumerate(row) if verdict.strict == 1.0)
        if passed:
            groups.setdefault(passed, []).append(index)
    if not groups:
        return Agreement([], [], 0.0)
    passed, indices = max(groups.items(), key=lambda group: (len(group[0]) * len(group[1]), len(group[0])))
    return Agreement([cases[number] for number in passed], indices, len(indices) / len(programs))
