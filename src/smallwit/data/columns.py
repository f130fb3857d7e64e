"""Mapping of a source's columns to smallwit's: prompt and completion, or a conversation."""

import math
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from smallwit.data.formats import unsupported_format
from smallwit.data.turns import merged_error, normal_tools, normal_turn, tools_error, turns_error
from smallwit.rows import BadRow, Row, kind_of
from smallwit.rows.row import columns_of

if TYPE_CHECKING:
    from smallwit.data.source import MappedRows

Column = Literal["id", "prompt", "completion", "messages", "tools", "answer", "task", "origin", "license"]
ROW_COLUMNS: tuple[str, ...] = get_args(Column)
"""The standard columns of a row, in the order in which they are written; steps add their own columns after these."""

_NEEDED = ("prompt", "completion", "messages", "answer")
_EXACT = 2**53
"""Below this bound a floating-point number holds every whole number exactly."""


def map_columns(
    source_row: Row,
    source: "MappedRows",
    path: Path,
    line: int,
    *,
    file_name: str | None = None,
    columnar: bool = False,
) -> Row | BadRow:
    """Return a row in smallwit's columns, without other columns; a `BadRow` with the reason if that is impossible.

    A column that the recipe does not map is read under smallwit's own name. Numbers as answers become text, digit by
    digit. A row without an id gets the id `file_name:line`. `columnar` is for formats that
    give all rows the same columns, and all objects of a column the same keys.
    """
    row = _read_columns(source_row, source, columnar)
    if isinstance(row, str):
        return BadRow(path, line, row)
    if source.task is not None:
        row["task"] = source.task
    row.setdefault("id", f"{file_name or path.name}:{line}")
    if source.style == "gsm8k" and isinstance(row.get("completion"), str):
        from smallwit.tasks.benchmarks.gsm8k import worked_answer

        worked = worked_answer(row["completion"])
        if worked is None:
            return BadRow(path, line, "style is gsm8k, and the completion has no line '#### answer'")
        row["completion"], row["answer"] = worked
    reason = row_error(row) or _empty(row)
    if reason is None and columnar:
        reason = merged_error(row)
    if reason is not None:
        return BadRow(path, line, reason)
    row = canonical(row)
    if source.instruction is not None:
        if "messages" in row:
            return BadRow(path, line, "the source adds an instruction to prompts, and this row is a conversation")
        row["prompt"] = f"{row['prompt'].strip()}\n{source.instruction}"
    return row


def unread_columns(source_row: Row, source: "MappedRows") -> set[str]:
    """Return the columns of a row that `map_columns` does not read."""
    return source_row.keys() - {source.columns.get(name, name) for name in ROW_COLUMNS}  # type: ignore[call-overload]


def _read_columns(source_row: Row, source: "MappedRows", columnar: bool) -> Row | str:
    """Return the columns that are read, under smallwit's names; a text with the reason if that is impossible."""
    row: Row = {}
    named = {str(name): column for name, column in source.columns.items()}
    error = unsupported_format(source_row, named.values())
    if error is not None:
        return error
    for name in ROW_COLUMNS:
        column = named.get(name, name)
        if source_row.get(column) is not None:
            row[name] = source_row[column]
        elif name in named and column not in source_row:
            return f"column {column!r} is missing; the row has {columns_of(source_row)}"
        elif column in source_row and name in _NEEDED and (name in named or (name == "answer" and not columnar)):
            return f"column {column!r} is null; give the row {_NOUN_PHRASES[name]}, or leave it out of the file"
    if not {"prompt", "messages"} & row.keys():
        what = "a row has a prompt, or messages; this has neither prompt nor messages"
        return f"{what} (it has {columns_of(source_row)}); name the column in the source: columns: {{prompt: NAME}}"
    if source.task is not None and "answer" in source_row and "answer" not in row and "answer" not in named:
        return f"column 'answer' is null, and task {source.task} is to judge this row; give it an answer"
    for name, reader in (("id", _id_text), ("answer", _answer)):
        if name in row:
            row[name], reason = reader(row[name])
            if reason is not None:
                return f"column {named.get(name, name)!r} {reason}"
    return row


_NOUN_PHRASES = {"prompt": "a prompt", "completion": "a completion", "messages": "its turns", "answer": "an answer"}


def _id_text(value: Any) -> tuple[Any, str | None]:
    """Return an id as text, and the reason against it. In a column with gaps a whole number becomes a float."""
    if isinstance(value, str):
        return value, None
    text, reason = number_text(value)
    return text, None if reason is None else "must be text or a whole number as an id, this " + reason


def _answer(value: Any) -> tuple[Any, str | None]:
    """Return a gold answer, and the reason against it: text, or the tests of a program as an object."""
    if isinstance(value, str):
        return value, None if value.strip() else "is empty, and nothing can be compared with it"
    if isinstance(value, dict):
        return value, None
    text, reason = number_text(value)
    return text, None if reason is None else f"must be text or a number as an answer, this {reason}"


def number_text(value: Any) -> tuple[str, str | None]:
    """Return a number in plain digits, all of them, and the reason against it."""
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


def row_error(row: Row) -> str | None:
    """Return why a row is no row of a dataset, or `None`."""
    if ("messages" in row) == ("prompt" in row):
        both = "both prompt and messages" if "messages" in row else "neither prompt nor messages"
        return f"a row has a prompt, or messages; this has {both}"
    for name in ("messages", "prompt", "completion"):
        value = row.get(name)
        if value is None or (isinstance(value, str) and name != "messages"):
            continue
        error = turns_error(name, value)
        if error is not None:
            return error
    if row.get("tools") is not None and (error := tools_error(row["tools"])) is not None:
        return error
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
    """Return which text of a row from outside is empty. A model may reply with nothing; in a file it is an error."""
    empty = (name for name in ("prompt", "completion") if isinstance(row.get(name), str) and not row[name].strip())
    return next((f"the {name} is empty" for name in empty), None)


def canonical(row: Row) -> Row:
    """Return the row in one form: a single question, with or without its answer, in `prompt` and `completion`, and
    every other conversation in `messages`."""
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
