"""Text in, text out: what evaluation and data construction ask of a model, wherever it runs."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, NotRequired, Protocol, TypedDict

from smallwit.thoughts import answer_part, is_unfinished

Overflow = Literal["refuse", "cut"]
"""What becomes of a prompt that leaves the reply no token of the model's context: it is refused, or its beginning is
cut off until `max_new_tokens` fit behind it."""


class Message(TypedDict):
    """One turn of a conversation, as chat templates take it. `content` is empty where a turn only calls tools."""

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
    """What a model is asked: a conversation (`messages`), or plain text that it continues (`text`), never both.

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


@dataclass(frozen=True)
class Decoding:
    """How replies are drawn. `temperature` 0 is greedy. Generation ends at the model's own end tokens, before the
    first of the `stop` strings (which is not part of the reply), or after `max_new_tokens`.
    """

    temperature: float
    max_new_tokens: int
    top_p: float = 1.0
    top_k: int | None = None
    repetition_penalty: float = 1.0
    stop: tuple[str, ...] = ()


class GenerationRequest(NamedTuple):
    """A request for one reply of the model called `model`."""

    model: str
    prompt: Prompt
    decoding: Decoding
    seed: int


@dataclass(frozen=True)
class Reply:
    """A model's text without special tokens, its length and its prompt's in tokens, and whether the limit cut it."""

    text: str
    tokens: int
    prompt_tokens: int
    truncated: bool


def first_stop(text: str, stops: Sequence[str]) -> int | None:
    """Return the place of the first stop string in the answer part of a model's text; `None` where there is none.

    A stop string within a thought stops nothing.
    """
    if is_unfinished(text):
        return None
    start = len(text) - len(answer_part(text))
    return min((place for stop in stops if (place := text.find(stop, start)) >= 0), default=None)


class Generator(Protocol):
    """A model behind text. What an implementation cannot do it refuses by name, before the first reply."""

    def reply(
        self,
        prompts: Sequence[Prompt],
        decoding: Decoding,
        seeds: Sequence[int],
        on_reply: Callable[[int, Reply], None] = lambda index, reply: None,
    ) -> list[Reply]:
        """One reply for each prompt, in the prompts' order. `seeds` has a random stream for each.

        `on_reply(index, reply)` is called in this thread as soon as a reply is there, in any order, so that a caller
        can keep it before the others have come.
        """
        ...
