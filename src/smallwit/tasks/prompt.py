"""What a model is asked: a conversation, or plain text that it continues."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NotRequired, TypedDict


class Message(TypedDict):
    """A turn of a conversation, as chat templates take it. `content` is empty where a turn only calls tools."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str
    name: NotRequired[str]
    reasoning_content: NotRequired[str]
    tool_calls: NotRequired[list[dict[str, Any]]]
    tool_call_id: NotRequired[str]


def message_text(message: Mapping[str, Any]) -> str:
    """Return all text of a message: reasoning, content and tool calls, a line each."""
    calls = message.get("tool_calls")
    parts = [message.get("reasoning_content"), message["content"]]
    parts.append(json.dumps(calls, ensure_ascii=False) if calls else None)
    return "\n".join(part for part in parts if part)


@dataclass(frozen=True)
class Prompt:
    """A prompt: a conversation (`messages`), or plain text to be continued (`text`), never both.

    `prefix` is the start of the assistant's turn, as if the model had written it; a reply does not repeat it. `tools`
    are JSON schemas of the functions that a conversation may call.
    """

    messages: tuple[Message, ...] = ()
    text: str | None = None
    prefix: str = ""
    tools: tuple[Mapping[str, Any], ...] = ()

    def __post_init__(self) -> None:
        if bool(self.messages) == (self.text is not None):
            raise ValueError("a prompt is either a conversation or plain text; give exactly one of messages and text")
