"""Find the thought of a reasoning model in its text: `<think>...</think>` before the answer."""

import re

OPENING, CLOSING = "<think>", "</think>"
_OPENED = re.compile(re.escape(OPENING) + r"\s*$")
_CLOSED = re.compile(re.escape(CLOSING) + r"\s*$")


def answer_part(response: str) -> str:
    """Return the text after the last thought of a response; the whole response if it has no thought.

    The result is empty if a thought is never closed: the response was cut before its answer. A closing tag alone counts
    too, because some templates open the thought in the prompt.
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
    """Return the opening tag at the end of a prompt, with the white space after it; empty if there is none."""
    match = _OPENED.search(prompt)
    return match[0] if match else ""


def closes_thought(prompt: str) -> bool:
    """Return whether a prompt ends with a closed thought, so that its reply is only the answer."""
    return _CLOSED.search(prompt) is not None
