"""Check that a chat template writes all of a conversation, with texts that occur nowhere else."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

THOUGHT_END = "</think>"
Turns = Sequence[Mapping[str, Any]]


def turn_shape(turn: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what a template may treat in its own way: a turn's role, its fields, and whether it holds a thought."""
    filled = tuple(sorted(name for name, value in turn.items() if value))
    return turn["role"], filled, THOUGHT_END in turn.get("content", "")


def left_out(
    render: Callable[[Turns], str], messages: Turns, tools: Sequence[Mapping[str, Any]], learned: int | None
) -> str | None:
    """Return, in words, the first part of a conversation that `render` leaves out, or `None`.

    Parts are the content and the tool calls of each turn, the `tools`, and the thought of the turn `learned`: the
    thoughts of others may be dropped. `tool_call_id` and `name` say nothing that a template must write.
    """
    wanted: list[tuple[str, str]] = []
    text = render([_probe(turn, place, place == learned, wanted) for place, turn in enumerate(messages)])
    wanted += [(str(tool.get("function", tool).get("name")), "the tools") for tool in tools]
    return next((what for mark, what in wanted if mark not in text), None)


def _probe(turn: Mapping[str, Any], place: int, learned: bool, wanted: list[tuple[str, str]]) -> dict[str, Any]:
    """Return the turn with marks for its texts; those that must be seen go to `wanted`, with words for them."""
    what = f"turn {place + 1} ({turn['role']})"
    thought = f"the thought of {what}" if learned else None

    def mark(part: str, described: str | None) -> str:
        text = f"probe{place}{part}x"
        if described is not None:
            wanted.append((text, described))
        return text

    made = dict(turn)
    if turn.get("content"):
        made["content"] = mark("content", what)
        if THOUGHT_END in turn["content"]:
            made["content"] = f"<think>\n{mark('thought', thought)}\n{THOUGHT_END}\n\n{made['content']}"
    if turn.get("reasoning_content"):
        made["reasoning_content"] = mark("reasoning", thought)
    if turn.get("tool_calls"):
        calls = f"the tool calls of {what}"
        made["tool_calls"] = [
            {
                **call,
                "function": {
                    "name": mark(f"call{number}name", calls),
                    "arguments": {"x": mark(f"call{number}argument", calls)},
                },
            }
            for number, call in enumerate(turn["tool_calls"])
        ]
    return made
