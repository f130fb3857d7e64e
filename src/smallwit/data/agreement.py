"""Whether independent samples agree: on a known answer, on the majority's, or on a program by running it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from smallwit.tasks.base import Problem, Task
from smallwit.verify.code import CodeJob, judge_code

Case = tuple[tuple[Any, ...], Any]
_CPU_SECONDS = 2.0  # of a program, which has to be quick on tests of a teacher's


@dataclass(frozen=True)
class Agreed:
    """The gold answer on which samples agree, the places of those that do, and their share of all samples."""

    gold: Any
    places: list[int]
    share: float


def agree_on_gold(task: Task, problem: Problem, responses: Sequence[str]) -> Agreed:
    """The samples that the task's verifier accepts, strictly read. Those without a verdict count neither way."""
    verdicts = task.judge([(problem, response) for response in responses])
    places = [place for place, verdict in enumerate(verdicts) if verdict.strict == 1.0]
    known = sum(verdict.strict is not None for verdict in verdicts)
    return Agreed(problem.gold, places, len(places) / known if known else 0.0)


def agree_on_majority(task: Task, problem: Problem, responses: Sequence[str]) -> Agreed:
    """The answer that most samples give in the declared format (Wang et al. 2022, arXiv 2203.11171), as gold.

    Which answers are the same is for the task's verifier to say: each of the samples' answers is tried as the gold
    answer, the commonest first; a later one wins with more samples only. The gold answer of `problem` is not looked at.
    """
    blank = replace(problem, gold="0")
    readings = task.judge([(blank, response) for response in responses])
    written = Counter(v.answer for v in readings if v.answer is not None and v.formatted)
    best = Agreed(None, [], 0.0)
    for answer, _ in written.most_common():
        agreed = agree_on_gold(task, replace(problem, gold=answer), responses)
        if len(agreed.places) > len(best.places):
            best = agreed
    return best


def agree_by_running(
    prompt: str, entry_point: str, programs: Sequence[str], cases: Sequence[Case], *, isolation: str | None = None
) -> Agreed:
    """The programs that agree with each other on the most cases (CodeT's dual agreement, Chen et al. 2022, arXiv
    2207.10397): of the groups of programs that pass the same cases, the one with most programs times cases.

    The gold is the list of these cases, empty when no program passes one.
    """
    jobs = [CodeJob(prompt, entry_point, program, cases=[case]) for program in programs for case in cases]
    verdicts = judge_code(jobs, cpu_seconds=_CPU_SECONDS, isolation=isolation)
    groups: dict[tuple[int, ...], list[int]] = {}
    for place in range(len(programs)):
        row = verdicts[place * len(cases) : (place + 1) * len(cases)]
        passed = tuple(number for number, verdict in enumerate(row) if verdict.strict == 1.0)
        if passed:
            groups.setdefault(passed, []).append(place)
    if not groups:
        return Agreed([], [], 0.0)
    passed, places = max(groups.items(), key=lambda group: (len(group[0]) * len(group[1]), len(group[0])))
    return Agreed([cases[number] for number in passed], places, len(places) / len(programs))
