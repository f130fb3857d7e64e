"""Reading the question, the answer and the problem of a row, whichever columns hold them."""

from collections.abc import Iterable, Iterator
from itertools import groupby, islice
from typing import TypeVar

from smallwit.data.turns import split_answer
from smallwit.errors import UserError
from smallwit.rows import Row
from smallwit.tasks.base import Problem
from smallwit.tasks.prompt import message_text

Item = TypeVar("Item")


def batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Yield the items in lists of `size`; the last list may be shorter."""
    remaining = iter(items)
    while batch := list(islice(remaining, size)):
        yield batch


def prompt_and_completion(row: Row) -> tuple[str, str | None]:
    """Return the text of the prompt and of the completion, `None` without one.

    In a conversation the prompt is all turns before the answer, one after the other.
    """
    if row.get("messages"):
        prompt, answer = split_answer(row["messages"])
        return "\n\n".join(map(message_text, prompt)), None if answer is None else message_text(answer)
    return row["prompt"], row.get("completion")


def with_completion(row: Row, text: str) -> Row:
    """Return the row with `text` as its completion, or as the last assistant turn of its conversation."""
    if not row.get("messages"):
        return row | {"completion": text}
    prompt, _ = split_answer(row["messages"])
    return row | {"messages": [*prompt, {"role": "assistant", "content": text}]}


def problem_of(row: Row) -> Problem:
    """Return the row as a problem of its task, so that the task's verifier can judge answers to it."""
    prompt, completion = prompt_and_completion(row)
    turns = row.get("messages") or []
    if turns:
        _, answer = split_answer(turns)
        completion = None if answer is None else answer["content"]
    tools = tuple(row.get("tools") or ())
    return Problem(str(row["id"]), prompt, row.get("answer"), completion, tuple(turns), tools)


def problem_with_gold(row: Row) -> Problem:
    """Return the row as a problem with a gold answer. Raises `UserError` for a row without one."""
    if "answer" not in row:
        raise UserError(
            f"row {row['id']} has no column 'answer', and without the gold answer nothing can be verified; map the "
            "column in its source (columns: {answer: NAME})"
        )
    return problem_of(row)


def completion_of(row: Row) -> str:
    """Return the completion of the row. Raises `UserError` for a row without one."""
    completion = problem_of(row).solution
    if completion is None:
        raise UserError(f"row {row['id']} has no completion to verify; generate one first, or filter such rows out")
    return completion


def by_problem(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Yield lists of adjacent rows of the same problem (task and id)."""
    for _, group in groupby(rows, key=lambda row: (row.get("task"), row["id"])):
        yield list(group)
