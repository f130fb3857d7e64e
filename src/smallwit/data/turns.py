"""Turns of conversations: what they may hold, their one form, and their text."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from smallwit.rows import Row, too_deep

ROLES = ("system", "developer", "user", "assistant", "tool")
TEXT_FIELDS = ("role", "content", "name", "reasoning_content", "tool_call_id")
FIELDS = (*TEXT_FIELDS, "tool_calls")
Turn = dict[str, Any]


def turns_trouble(column: str, turns: Any) -> str | None:
    """Why the value of a column is no list of turns that a chat template takes, or `None`."""
    if not isinstance(turns, list) or not turns:
        what = "messages must be" if column == "messages" else f"column {column!r} must be text or"
        return f"{what} a list of turns"
    for number, turn in enumerate(turns, 1):
        trouble = _turn_trouble(turn)
        if trouble is not None:
            return f"turn {number} of '{column}' {trouble}"
    return None


def tools_trouble(tools: Any) -> str | None:
    """Why the value of the column `tools` is no list of JSON schemas, or the JSON text of one; or `None`."""
    if isinstance(tools, str):
        tools = _read(tools)
    if not isinstance(tools, list):
        return "column 'tools' must be a list of JSON schemas, or the JSON text of one"
    for number, tool in enumerate(tools, 1):
        function = tool.get("function", tool) if isinstance(tool, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            return f"tool {number} must be a JSON schema with the name of a function"
    return None


def merged_trouble(row: Row) -> str | None:
    """Why tool calls or tools read from columns (parquet, the hub) are not those that were written, or `None`.

    Columns give all objects of a place the same keys, with null where an object had none.
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
    """A turn without empty fields; `content` is text, and the arguments of tool calls are objects."""
    made = {name: value for name, value in turn.items() if value not in (None, [])} | {
        "content": turn.get("content") or ""
    }
    if "tool_calls" in made:
        made["tool_calls"] = [_normal_call(call) for call in made["tool_calls"]]
    return {name: made[name] for name in FIELDS if name in made}


def normal_tools(tools: Any) -> list[Any]:
    """Tools as a list, whether they were one or its JSON text."""
    return list(_read(tools) if isinstance(tools, str) else tools)


def asked_and_answered(turns: Sequence[Turn]) -> tuple[Sequence[Turn], Turn | None]:
    """The turns before the answer, and the answer: the last turn, if it is the assistant's."""
    return (turns[:-1], turns[-1]) if turns[-1]["role"] == "assistant" else (turns, None)


def turn_text(turn: Mapping[str, Any]) -> str:
    """Everything that a turn says: its thought, its content, its tool calls."""
    calls = turn.get("tool_calls")
    parts = [turn.get("reasoning_content"), turn["content"], json.dumps(calls, ensure_ascii=False) if calls else None]
    return "\n".join(part for part in parts if part)


def tools_text(row: Row) -> str:
    """The schemas of a row's tools; empty without any."""
    return json.dumps(row["tools"], ensure_ascii=False) if row.get("tools") else ""


def readable(turns: Sequence[Mapping[str, Any]]) -> str:
    """Turns for people to read, each behind its role."""
    return "\n\n".join(f"[{turn['role']}] {turn_text(turn)}" for turn in turns)


def _turn_trouble(turn: Any) -> str | None:
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
        return _calls_trouble(calls)
    if "content" not in given:
        return f"must have a role ({', '.join(ROLES)}) and a content that is text"
    if turn["role"] in ("user", "assistant") and not given["content"].strip() and not given.get("reasoning_content"):
        return "is empty"
    return None


def _calls_trouble(calls: Any) -> str | None:
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
    """The JSON data of a text; `None` where it is none, or nested too deep to be walked."""
    try:
        return None if too_deep(text) else json.loads(text)
    except ValueError:
        return None
