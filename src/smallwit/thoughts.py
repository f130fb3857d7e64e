"""The thought of a reasoning model in its text: `<think>...</think>` in front of the answer."""

import re

OPENING, CLOSING = "<think>", "</think>"
_OPENED = re.compile(re.escape(OPENING) + r"\s*$")
_CLOSED = re.compile(re.escape(CLOSING) + r"\s*$")


def answer_part(response: str) -> str:
    """Return the answer behind the last thought of a response, all of it where there is none.

    It is empty where a thought is never closed: the response was cut before its answer. A closing tag alone counts too:
    some templates open the thought in the prompt.
    """
    _, closed, answer = response.rpartition(CLOSING)
    if has_thought(answer):
        return ""
    return answer.lstrip("\n") if closed else answer


def is_unfinished(response: str) -> bool:
    """Return whether a response ends within a thought."""
    return has_thought(response.rpartition(CLOSING)[2])


def has_thought(text: str) -> bool:
    """Return whether a text begins with a thought."""
    return text.lstrip().startswith(OPENING)


def opening_of(prompt: str) -> str:
    """Return the tag, and the white space behind it, with which a prompt opens the thought of its reply, if it does."""
    match = _OPENED.search(prompt)
    return match[0] if match else ""


def closes_thought(prompt: str) -> bool:
    """Return whether a prompt ends behind a thought, so that its reply is the answer alone."""
    return _CLOSED.search(prompt) is not None
