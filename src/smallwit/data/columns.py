"""Other people's columns as ours: prompt and completion, or a conversation."""

from pathlib import Path

from smallwit.data.turns import merged_trouble, normal_tools, normal_turn, tools_trouble, turns_trouble
from smallwit.recipe.data import ROW_COLUMNS, MappedRows
from smallwit.rows import BadRow, Row
from smallwit.tasks.gsm8k import worked_answer


def mapped(theirs: Row, source: MappedRows, path: Path, line: int, *, columnar: bool = False) -> Row | BadRow:
    """A row in our columns, or why it cannot be one. Other columns are left behind.

    A column that the recipe does not map is looked for under our own name. Numbers as answers become text. `columnar`
    is for rows of formats that give all objects of a column the same keys.
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
    if isinstance(row.get("prompt"), str) and not row["prompt"].strip():
        return "the prompt is empty"
    if isinstance(row.get("completion"), str) and not row["completion"].strip():
        return "the completion is empty"
    for name in ("id", "task", "origin", "license"):
        if name in row and not isinstance(row[name], str):
            return f"column '{name}' must be text"
    return None


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
