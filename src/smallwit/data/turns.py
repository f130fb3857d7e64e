"""Turns of conversations: their checks, their canonical form, and their text."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from smallwit.rows import Row, too_deep
from smallwit.tasks.prompt import message_text

ROLES = ("system", "developer", "user", "assistant", "tool")
TEXT_FIELDS = ("role", "content", "name", "reasoning_content", "tool_call_id")
FIELDS = (*TEXT_FIELDS, "tool_calls")
Turn = dict[str, Any]


def turns_error(column: str, turns: Any) -> str | None:
    """Return why the value of a column is no list of turns that a chat template takes, or `None`."""
    if not isinstance(turns, list) or not turns:
        what = "messages must be" if column == "messages" else f"column {column!r} must be text or"
        return f"{what} a list of turns"
    for number, turn in enumerate(turns, 1):
        error = _turn_error(turn)
        if error is not None:
            return f"turn {number} of '{column}' {error}"
    return None


def tools_error(tools: Any) -> str | None:
    """Return why the value of `tools` is no list of JSON schemas, and no JSON text of one; or `None`."""
    if isinstance(tools, str):
        tools = _read(tools)
    if not isinstance(tools, list):
        return "column 'tools' must be a list of JSON schemas, or the JSON text of one"
    for number, tool in enumerate(tools, 1):
        function = tool.get("function", tool) if isinstance(tool, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            return f"tool {number} must be a JSON schema with the name of a function"
    return None


def merged_error(row: Row) -> str | None:
    """Return why tool calls or tools read from columns (parquet, the hub) differ from what was written, or `None`.

    Columns give all objects the same keys, with null where an object had none.
    """
    columns = [row.get(name) for name in ("messages", "prompt", "completion")]
    turns = [turn for column in columns if isinstance(column, list) for turn in column]
    calls = [call["function"] for turn in turns for call in turn.get("tool_calls") or ()]
    for what, value in [
        *((f"the arguments of {call['name']}", call["arguments"]) for call in calls),
        ("the tools", row.get("tools") or []),
    ]:
        if _has_null(value):
            return f"{what} hold null, as columns put it in place of what is missing; store them as JSON text"
    return None


def _has_null(value: Any) -> bool:
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return value is None or any(map(_has_null, parts))


def normal_turn(turn: Mapping[str, Any]) -> Turn:
    """Return a turn without empty fields; `content` is text, and the arguments of tool calls are objects."""
    made = {name: value for name, value in turn.items() if value not in (None, [])} | {
        "content": turn.get("content") or ""
    }
    if "tool_calls" in made:
        made["tool_calls"] = [_normal_call(call) for call in made["tool_calls"]]
    return {name: made[name] for name in FIELDS if name in made}


def normal_tools(tools: Any) -> list[Any]:
    """Return tools as a list, from a list or its JSON text."""
    return list(_read(tools) if isinstance(tools, str) else tools)


def split_answer(turns: Sequence[Turn]) -> tuple[Sequence[Turn], Turn | None]:
    """Return the turns before the answer, and the answer: the last turn, if it is the assistant's."""
    return (turns[:-1], turns[-1]) if turns[-1]["role"] == "assistant" else (turns, None)


def tools_text(row: Row) -> str:
    """Return the schemas of a row's tools as text; empty without tools."""
    return json.dumps(row["tools"], ensure_ascii=False) if row.get("tools") else ""


def transcript(turns: Sequence[Mapping[str, Any]]) -> str:
    """Return turns for people to read, each after its role."""
    return "\n\n".join(f"[{turn['role']}] {message_text(turn)}" for turn in turns)


def _turn_error(turn: Any) -> str | None:
    if not isinstance(turn, dict) or turn.get("role") not in ROLES:
        return f"must have a role ({', '.join(ROLES)}) and a content that is text"
    given = {name: value for name, value in turn.items() if value not in (None, [])}
    for name in given:
        if name not in FIELDS:
            return f"has the field '{name}'; a turn can have {', '.join(FIELDS)}"
        if name in TEXT_FIELDS and not isinstance(given[name], str):
            return f"must have a {name} that is text"
    calls = given.get("tool_calls")
    if calls is not None:
        if turn["role"] != "assistant":
            return f"calls tools, and its role is {turn['role']}; only the assistant calls tools"
        return _calls_error(calls)
    if "content" not in given:
        return f"must have a role ({', '.join(ROLES)}) and a content that is text"
    if turn["role"] in ("user", "assistant") and not given["content"].strip() and not given.get("reasoning_content"):
        return "is empty"
    return None


def _calls_error(calls: Any) -> str | None:
    for call in calls if isinstance(calls, list) else [None]:
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            return "must have tool_calls that are a list of {function: {name, arguments}}"
        arguments = function.get("arguments")
        if not isinstance(_read(arguments) if isinstance(arguments, str) else arguments, dict):
            return f"calls {function['name']} with arguments that are no JSON object"
    return None


def _normal_call(call: Mapping[str, Any]) -> dict[str, Any]:
    function = call["function"]
    arguments = function["arguments"]
    read = _read(arguments) if isinstance(arguments, str) else arguments
    whole = {name: value for name, value in call.items() if value is not None}
    return whole | {"function": function | {"arguments": read}}


def _read(text: str) -> Any:
    """Return the JSON data of a text; `None` for other text, and for JSON that is nested too deep."""
    try:
        return None if too_deep(text) else json.loads(text)
    except ValueError:
        return None
