"""Count the rows that are longer than the model's context, and report them before the first step."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from smallwit.errors import UserError
from smallwit.models.chat import ChatTokenizer
from smallwit.tasks.base import Problem, Task
from smallwit.training.demonstrations import demonstration_examples, encode_demonstrations, encode_problems
from smallwit.training.problem_stream import TaskProblems
from smallwit.training.settings import Demonstrations, LengthLimit, Rollouts, Text

_AT_ONCE = 256
_MADE = 1_000
"""Problems that are checked of a task that generates its problems on access."""


def check_lengths(
    name: str,
    spec: Demonstrations | Rollouts,
    problems: Sequence[TaskProblems],
    chat: ChatTokenizer,
    context: int,
    say: Callable[[str], None],
) -> None:
    """Report how many rows of source `name` are cut at the model's context, or at `max_length` if they are cut there.

    Raises `UserError` if none is left.
    """
    longest = spec.cut_length(context) if isinstance(spec, LengthLimit) else context
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
    tokens = f"the model's {longest:,} tokens" if longest == context else f"max_length ({longest:,} tokens)"
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


def within_max_length(
    name: str,
    spec: Demonstrations,
    problems: Sequence[TaskProblems],
    chat: ChatTokenizer,
    say: Callable[[str], None],
) -> list[TaskProblems]:
    """Return the problems whose examples have at most `max_length` tokens, and report those left out.

    Problems that a task generates on access are left out when their batch is made. Raises `UserError` if none is left.
    """
    longest = spec.kept_length
    if longest is None:
        return list(problems)
    frame = len(chat.encode_prompts(["x"])[0]) + len(chat.encode_completions(["x"])[0])

    def fits(task: Task, problem: Problem) -> bool:
        # A text has at most as many tokens as bytes, so that most rows fit without being tokenized.
        if problem.solution is None or _bytes(problem, frame, False) <= longest:
            return True
        return len(encode_demonstrations([(task, problem)], chat, spec.loss_on)[0].tokens) <= longest

    kept = []
    for each in problems:
        rows: Sequence[Problem] = each.rows
        if isinstance(rows, list | tuple):
            own = [problem for problem in rows[each.first : each.first + each.size] if fits(each.task, problem)]
            each = TaskProblems(each.task, own, 0, len(own))
        kept.append(each)
    count = sum(each.size for each in problems) - sum(each.size for each in kept)
    if count == sum(each.size for each in problems):
        raise UserError(f"source {name}: all {count:,} rows are longer than max_length ({longest:,} tokens); raise it")
    if count:
        whole = sum(each.size for each in problems)
        say(f"source {name}: {count:,} of {whole:,} rows are longer than max_length ({longest:,} tokens) and left out")
    return [each for each in kept if each.size]


def documents_within(
    name: str, spec: Text, documents: Sequence[str], chat: ChatTokenizer, say: Callable[[str], None]
) -> list[str]:
    """Return the documents of at most `max_length` tokens, and report those left out, as `within_max_length` does."""
    longest = spec.kept_length
    if longest is None:
        return list(documents)
    frame = len(chat.encode_documents([""])[0])
    kept = [
        text
        for text in documents
        if len(text.encode()) + frame <= longest or len(chat.encode_documents([text])[0]) <= longest
    ]
    count = len(documents) - len(kept)
    tokens = f"max_length ({longest:,} tokens)"
    if not kept:
        raise UserError(f"source {name}: all {count:,} documents are longer than {tokens}; raise it")
    if count:
        say(f"source {name}: {count:,} of {len(documents):,} documents are longer than {tokens} and left out")
    return kept


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
