"""One reply of a server as it is written, by server-sent events."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from smallwit.inference.endpoint_client import RequestFailed
from smallwit.inference.endpoint_dialect import CHAT, COMPLETIONS, Dialect, thought_in, usage_of, whole
from smallwit.inference.generator import Decoding, Reply
from smallwit.tasks.prompt import Prompt
from smallwit.thoughts import CLOSING, OPENING


async def streamed(dialect: Dialect, prompt: Prompt, decoding: Decoding, seed: int) -> AsyncGenerator[Reply, None]:
    """Yield the reply as far as it has come; a thought that the server sends apart stands in its tags.

    Where the server does not count, the pieces that came are counted. Raises as `Client.post` does.
    """
    path = CHAT if prompt.text is None else COMPLETIONS
    body = dialect.body(prompt, decoding, seed) | {"stream": True, "stream_options": {"include_usage": True}}
    text, pieces, thinking, reason = "", 0, False, None
    prompt_tokens, tokens = None, None
    async with aclosing(dialect.client.stream(path, body)) as events:
        async for event in events:
            counted = usage_of(event)
            prompt_tokens, tokens = counted[0] or prompt_tokens, counted[1] or tokens
            for choice in _choices(event):
                thought, content = _parts(choice)
                if thought and not thinking:
                    text, thinking = text + OPENING, True
                text += thought
                if content and thinking:
                    text, thinking = text + CLOSING, False
                text += content
                pieces += bool(thought or content)
                reason = choice.get("finish_reason") or reason
            yield Reply(whole(text).rstrip("\N{REPLACEMENT CHARACTER}"), tokens or pieces, prompt_tokens or 0, False)
    if reason is None:
        raise RequestFailed("the server ended the answer without saying that it is whole")
    yield Reply(whole(text), tokens or pieces, prompt_tokens or 0, reason == "length")


def _choices(event: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the first choice of an event, in a list; the last event may have none."""
    choices = event.get("choices") or []
    if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
        raise RequestFailed("the server sends an event that is no part of an answer")
    return choices[:1]


def _parts(choice: dict[str, Any]) -> tuple[str, str]:
    """Return the thought and the text that a choice brings: a part of them, or all where nothing is streamed."""
    said = choice.get("delta") or choice.get("message") or choice
    said = said if isinstance(said, dict) else {"content": said}
    thought, text = thought_in(said) or "", said.get("content") or said.get("text") or ""
    if not isinstance(thought, str) or not isinstance(text, str):
        raise RequestFailed("the server sends an answer that is no text")
    return thought, text
