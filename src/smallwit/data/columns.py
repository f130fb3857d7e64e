"""Other people's columns as ours: prompt and completion, or a conversation."""

import math
from decimal import Decimal
from pathlib import Path
from typing import Any

from smallwit.data.formats import format_trouble
from smallwit.data.turns import merged_trouble, normal_tools, normal_turn, tools_trouble, turns_trouble
from smallwit.recipe.data import ROW_COLUMNS, MappedRows
from smallwit.rows import BadRow, Row, kind_of
from smallwit.rows.row import columns_of
from smallwit.tasks.benchmarks.gsm8k import worked_answer

_NEEDED = ("prompt", "completion", "messages", "answer")
_EXACT = 2**53
"""The largest bound below which every whole number is a floating-point number of its own."""


def mapped(
    theirs: Row, source: MappedRows, path: Path, line: int, *, called: str | None = None, columnar: bool = False
) -> Row | BadRow:
    """A row in our columns, or why it cannot be one. Other columns are left behind.

    A row without an id is named by its line and by what its file is `called`.

    A column that the recipe does not map is looked for under our own name. Numbers as answers become text, digit by
    digit. `columnar` is for rows of formats that give all objects of a column the same keys, and all rows all columns.
    """
    row = _ours(theirs, source, columnar)
    if isinstance(row, str):
        return BadRow(path, line, row)
    if source.task is not None:
        row["task"] = source.task
    row.setdefault("id", f"{called or path.name}:{line}")
    if source.style == "gsm8k" and isinstance(row.get("completion"), str):
        worked = worked_answer(row["completion"])
        if worked is None:
            return BadRow(path, line, "style is gsm8k, and the completion has no line '#### answer'")
        row["completion"], row["answer"] = worked
    reason = shape_trouble(row) or _empty(row)
    if reason is None and columnar:
        reason = merged_trouble(row)
    if reason is not None:
        return BadRow(path, line, reason)
    row = plain(row)
    if source.instruction is not None:
        if "messages" in row:
            return BadRow(path, line, "the source adds an instruction to prompts, and this row is a conversation")
        row["prompt"] = f"{row['prompt'].strip()}\n{source.instruction}"
    return row


def left_behind(theirs: Row, source: MappedRows) -> set[str]:
    """The columns of a row that `mapped` does not read."""
    return theirs.keys() - {source.columns.get(name, name) for name in ROW_COLUMNS}  # type: ignore[call-overload]


def _ours(theirs: Row, source: MappedRows, columnar: bool) -> Row | str:
    """The columns that are read, under our names, or why they cannot be."""
    row: Row = {}
    named = {str(name): column for name, column in source.columns.items()}
    trouble = format_trouble(theirs, named.values())
    if trouble is not None:
        return trouble
    for name in ROW_COLUMNS:
        column = named.get(name, name)
        if theirs.get(column) is not None:
            row[name] = theirs[column]
        elif name in named and column not in theirs:
            return f"column {column!r} is missing; the row has {columns_of(theirs)}"
        elif column in theirs and name in _NEEDED and (name in named or (name == "answer" and not columnar)):
            return f"column {column!r} is null; give the row {_CALLED[name]}, or leave it out of the file"
    if not {"prompt", "messages"} & row.keys():
        what = "a row has a prompt, or messages; this has neither prompt nor messages"
        return f"{what} (it has {columns_of(theirs)}); name the column in the source: columns: {{prompt: NAME}}"
    if source.task is not None and "answer" in theirs and "answer" not in row and "answer" not in named:
        return f"column 'answer' is null, and task {source.task} is to judge this row; give it an answer"
    for name, reader in (("id", _id_text), ("answer", _answer)):
        if name in row:
            row[name], reason = reader(row[name])
            if reason is not None:
                return f"column {named.get(name, name)!r} {reason}"
    return row


_CALLED = {"prompt": "a prompt", "completion": "a completion", "messages": "its turns", "answer": "an answer"}


def _id_text(value: Any) -> tuple[Any, str | None]:
    """An id as text. A float is what a whole number becomes in a column with gaps."""
    if isinstance(value, str):
        return value, None
    text, reason = number_text(value)
    return text, None if reason is None else "must be text or a whole number as an id, this " + reason


def _answer(value: Any) -> tuple[Any, str | None]:
    """A gold answer: text, or the tests of a program as an object; numbers become text."""
    if isinstance(value, str):
        return value, None if value.strip() else "is empty, and nothing can be compared with it"
    if isinstance(value, dict):
        return value, None
    text, reason = number_text(value)
    return text, None if reason is None else f"must be text or a number as an answer, this {reason}"


def number_text(value: Any) -> tuple[str, str | None]:
    """A number in plain digits, all of them; or why there is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "", f"is {kind_of(value)}"
    if isinstance(value, int):
        return str(value), None
    if not math.isfinite(value):
        return "", f"is {value}"
    if abs(value) >= _EXACT:
        return "", f"is a floating-point number beyond 2^53, which has lost digits ({value!r}); write it as text"
    whole = value.is_integer()
    return (str(int(value)) if whole else format(Decimal(repr(value)), "f")), None


def shape_trouble(row: Row) -> str | None:
    """Why a row is no row of a dataset, or `None`."""
    if ("messages" in row) == ("prompt" in row):
        both = "both prompt and messages" if "messages" in row else "neither prompt nor messages"
        return f"a row has a prompt, or messages; this has {both}"
    for name in ("messages", "prompt", "completion"):
        value = row.get(name)
        if value is None or (isinstance(value, str) and name != "messages"):
            continue
        trouble = turns_trouble(name, value)
        if trouble is not None:
            return trouble
    if row.get("tools") is not None and (trouble := tools_trouble(row["tools"])) is not None:
        return trouble
    if row.get("messages") is not None and row.get("completion") is not None:
        return "a conversation ends in its answer; this has messages and a completion"
    if isinstance(row.get("completion"), list) and [turn["role"] for turn in row["completion"]] != ["assistant"]:
        roles = ", ".join(turn["role"] for turn in row["completion"])
        return f"a completion is one assistant turn; this has {roles}: give the conversation as messages"
    if isinstance(row.get("prompt"), list) != isinstance(row.get("completion", row.get("prompt")), list):
        return "prompt and completion must both be text, or both conversations"
    for name in ("id", "task", "origin", "license"):
        if name in row and not isinstance(row[name], str):
            return f"column {name!r} must be text"
    return None


def _empty(row: Row) -> str | None:
    """Which text of a row from outside is empty: a model of ours may answer with nothing, a file says nothing by it."""
    empty = (name for name in ("prompt", "completion") if isinstance(row.get(name), str) and not row[name].strip())
    return next((f"the {name} is empty" for name in empty), None)


def plain(row: Row) -> Row:
    """The row in one form: a question, or a question and its answer, as prompt and completion; all else as messages."""
    row = dict(row)
    tools = normal_tools(row.pop("tools", None) or [])
    if tools:
        row["tools"] = tools
        if isinstance(row.get("prompt"), str):
            answer = row.pop("completion", None)
            row["messages"] = [{"role": "user", "content": row.pop("prompt")}]
            row["messages"] += [] if answer is None else [{"role": "assistant", "content": answer}]
    if isinstance(row.get("prompt"), list):
        row["messages"] = row.pop("prompt") + (row.pop("completion", None) or [])
    if "messages" in row:
        turns = row["messages"] = [normal_turn(turn) for turn in row["messages"]]
        simple = not tools and all(turn.keys() == {"role", "content"} for turn in turns)
        if simple and [turn["role"] for turn in turns] in (["user"], ["user", "assistant"]):
            del row["messages"]
            row["prompt"] = turns[0]["content"]
            if len(turns) == 2:
                row["completion"] = turns[1]["content"]
    return row
