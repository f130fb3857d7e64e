"""Other people's columns as ours: prompt and completion, or a conversation."""

from pathlib import Path
from typing import Any

from smallwit.recipe.data import ROW_COLUMNS, MappedRows
from smallwit.rows import BadRow, Row
from smallwit.tasks.gsm8k import worked_answer

ROLES = ("system", "user", "assistant")


def mapped(theirs: Row, source: MappedRows, path: Path, line: int) -> Row | BadRow:
    """A row in our columns, or why it cannot be one. Other columns are left behind.

    A column that the recipe does not map is looked for under our own name. Numbers as answers become text.
    """
    row: Row = {}
    named = {str(name): column for name, column in source.columns.items()}
    for name in ROW_COLUMNS:
        column = named.get(name, name)
        if column in theirs and theirs[column] is not None:
            row[name] = theirs[column]
        elif name in named and column not in theirs:
            return BadRow(path, line, f"column '{column}' is missing; the row has {', '.join(map(repr, theirs))}")
    if source.task is not None:
        row["task"] = source.task
    row["id"] = str(row.get("id", f"{path.name}:{line}"))
    if isinstance(row.get("answer"), int | float) and not isinstance(row["answer"], bool):
        row["answer"] = f"{row['answer']:.15g}"
    if source.style == "gsm8k" and isinstance(row.get("completion"), str):
        worked = worked_answer(row["completion"])
        if worked is None:
            return BadRow(path, line, "style is gsm8k, and the completion has no line '#### answer'")
        row["completion"], row["answer"] = worked
    reason = shape_trouble(row)
    if reason is not None:
        return BadRow(path, line, reason)
    row = plain(row)
    if source.instruction is not None:
        if "messages" in row:
            return BadRow(path, line, "the source adds an instruction to prompts, and this row is a conversation")
        row["prompt"] = f"{row['prompt'].strip()}\n{source.instruction}"
    return row


def shape_trouble(row: Row) -> str | None:
    """Why a row is no row of a dataset, or `None`."""
    if ("messages" in row) == ("prompt" in row):
        both = "both prompt and messages" if "messages" in row else "neither prompt nor messages"
        return f"a row has a prompt, or messages; this has {both}"
    for name in ("messages", "prompt", "completion"):
        value = row.get(name)
        if value is None or (isinstance(value, str) and name != "messages"):
            continue
        trouble = _turns_trouble(name, value)
        if trouble is not None:
            return trouble
    if isinstance(row.get("prompt"), list) != isinstance(row.get("completion", row.get("prompt")), list):
        return "prompt and completion must both be text, or both conversations"
    if isinstance(row.get("prompt"), str) and not row["prompt"].strip():
        return "the prompt is empty"
    if isinstance(row.get("completion"), str) and not row["completion"].strip():
        return "the completion is empty"
    for name in ("id", "task", "origin", "license"):
        if name in row and not isinstance(row[name], str):
            return f"column '{name}' must be text"
    return None


def _turns_trouble(name: str, turns: Any) -> str | None:
    if not isinstance(turns, list) or not turns:
        return (
            f"column '{name}' must be text or a list of turns"
            if name != "messages"
            else "messages must be a list of turns"
        )
    for number, turn in enumerate(turns, 1):
        good = isinstance(turn, dict) and turn.get("role") in ROLES and isinstance(turn.get("content"), str)
        if not good:
            return f"turn {number} of '{name}' must have a role ({', '.join(ROLES)}) and a content that is text"
    return None


def plain(row: Row) -> Row:
    """A conversation of one question, or of one question and its answer, as prompt and completion."""
    row = dict(row)
    if isinstance(row.get("prompt"), list):
        row["messages"] = row.pop("prompt") + (row.pop("completion", None) or [])
    turns = row.get("messages")
    if turns is not None and [turn["role"] for turn in turns] in (["user"], ["user", "assistant"]):
        del row["messages"]
        row["prompt"] = turns[0]["content"]
        if len(turns) == 2:
            row["completion"] = turns[1]["content"]
    return row
