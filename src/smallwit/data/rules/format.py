"""The filter rule `format`."""

from typing import Literal

from pydantic import Field

from smallwit.data.rule import CompletionRule
from smallwit.data.rules.code import python_blocks


class FormatRule(CompletionRule):
    """The completion gives its answer in the declared format."""

    kind: Literal["format"] = Field(description="the completion gives its answer in the declared format")
    answer: Literal["boxed", "fenced"] = Field(
        description="boxed: in \\boxed{}; fenced: a closed fenced block of Python"
    )

    def completion_violation(self, completion: str) -> str | None:
        """Return why the completion has no answer in the format, or `None`."""
        return unboxed_reason(completion) if self.answer == "boxed" else unfenced_reason(completion)


def unboxed_reason(completion: str) -> str | None:
    """Return why a completion does not give its answer in a box, or `None`."""
    from smallwit.verify.extract import boxed

    boxes = boxed(completion)
    if not boxes:
        return "has no boxed answer"
    return None if boxes[-1].strip() else "its last box is empty"


def unfenced_reason(completion: str) -> str | None:
    """Return why a completion does not give its program in a fenced block, or `None`."""
    return None if python_blocks(completion) else "has no closed fenced block of Python"
