"""Count the rows that are longer than the model's context, and report them before the first step."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from smallwit.errors import UserError
from smallwit.models.chat import ChatTokenizer
from smallwit.tasks.base import Problem, Task
from smallwit.training.demonstrations import demonstration_examples, encode_problems
from smallwit.training.problem_stream import TaskProblems
from smallwit.training.settings import Rollouts, WorkedSolutions

_AT_ONCE = 256
_MADE = 1_000
"""Problems that are checked of a task that generates its problems on access."""


def check_lengths(
    name: str,
    spec: WorkedSolutions | Rollouts,
    problems: Sequence[TaskProblems],
    chat: ChatTokenizer,
    longest: int,
    say: Callable[[str], None],
) -> None:
    """Report how many rows of source `name` a context of `longest` tokens cuts. Raises `UserError` if none is left."""
    rollouts = isinstance(spec, Rollouts)
    room = spec.max_new_tokens if isinstance(spec, Rollouts) else 0
    frame = len(chat.encode_prompts(["x"])[0]) + len(chat.encode_completions(["x"])[0])
    counts: Counter[str] = Counter()
    looked = 0
    waiting: list[tuple[Task, Problem]] = []

    def count() -> None:
        if isinstance(spec, Rollouts):
            lengths = list(map(len, encode_problems(chat, [problem for _, problem in waiting])))
            counts["left_out"] += sum(length >= longest for length in lengths)
            counts["cut"] += sum(longest - room < length < longest for length in lengths)
        else:
            demonstration_examples(waiting, chat, longest, spec.loss_on, counts)
        waiting.clear()

    for task, problem in _looked_at(problems):
        looked += 1
        # A text has at most as many tokens as bytes, so that most rows fit without being tokenized.
        if (rollouts or problem.solution is not None) and _bytes(problem, frame, rollouts) + room > longest:
            waiting.append((task, problem))
        if len(waiting) == _AT_ONCE:
            count()
    if waiting:
        count()
    tokens = f"the model's {longest:,} tokens"
    if looked and counts["left_out"] == looked:
        what = f"source {name}: the prompts of all {looked:,} rows have {tokens} or more, and no row is left"
        raise UserError(f"{what}; shorten them, or take a model with a longer context")
    cut, left_out = counts["cut"], counts["left_out"]
    if rollouts and counts.total():
        say(
            f"source {name}: of {looked:,} prompts {left_out:,} alone have {tokens}, and {cut:,} leave less room than "
            f"max_new_tokens ({room:,}); longer prompts are left out, and completions end where the context does"
        )
    elif counts.total():
        say(
            f"source {name}: of {looked:,} rows {cut:,} are longer than {tokens} and are trained without their end, "
            f"and {left_out:,} are left out, as their prompts alone are that long"
        )


def _looked_at(problems: Sequence[TaskProblems]) -> Iterator[tuple[Task, Problem]]:
    for each in problems:
        there = each.size if isinstance(each.rows, list | tuple) else min(each.size, _MADE)
        for index in range(there):
            yield each.task, each[index]


def _bytes(problem: Problem, frame: int, rollouts: bool) -> int:
    """Return an upper bound of a problem's tokens, with its solution except for rollouts.

    `frame` is the number of tokens that a chat template adds to a turn.
    """
    if problem.messages:
        whole = [problem.messages, problem.tools]
        return len(json.dumps(whole, ensure_ascii=False).encode()) + frame * (len(problem.messages) + 1)
    return len(problem.prompt.encode()) + frame + (0 if rollouts else len(str(problem.solution).encode()))
