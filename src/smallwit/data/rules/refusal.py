"""The filter rule `refusal`."""

import re
from typing import Literal

from pydantic import Field

from smallwit.data.rule import CompletionRule

_CANNOT = r"(?:can(?:not|['’]t)|won['’]t|am (?:unable|not able) to|must decline to|must refuse to)"
_DO = r"(?:help|assist|provide|answer|fulfil|comply|do that|continue|create|generate|write)"
_REFUSAL = re.compile(
    rf"\bas an? (?:ai|(?:large )?language model)\b|\bi {_CANNOT} {_DO}"
    rf"|\b(?:i['’]m|i am) (?:sorry|afraid)\b[^.]{{0,30}}\bi {_CANNOT}\b",
    re.IGNORECASE,
)
_REFUSAL_WITHIN = 300


def refusal_reason(completion: str) -> str | None:
    """Return the refusal that a completion begins with, or `None`."""
    match = _REFUSAL.search(completion[:_REFUSAL_WITHIN])
    return None if match is None else f"declines: {match[0]!r}"


class RefusalRule(CompletionRule):
    """The completion does not refuse to answer."""

    kind: Literal["refusal"] = Field(description="the completion does not refuse to answer")

    def completion_violation(self, completion: str) -> str | None:
        """Return the refusal, or `None`."""
        return refusal_reason(completion)
