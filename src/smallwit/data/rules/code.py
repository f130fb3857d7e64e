"""The filter rule `code`."""

import ast
import warnings
from typing import Literal

from pydantic import Field

from smallwit.data.rule import CompletionRule
from smallwit.verify.sandbox.blocks import PYTHON, fenced_blocks


class CodeRule(CompletionRule):
    """Every fenced Python block of the completion parses."""

    kind: Literal["code"] = Field(description="every fenced Python block of the completion parses")

    def completion_violation(self, completion: str) -> str | None:
        """Return why a block does not parse, or `None`."""
        return syntax_reason(completion)


def syntax_reason(completion: str) -> str | None:
    """Return why a fenced Python block of a completion does not parse, or `None`."""
    for number, block in enumerate(python_blocks(completion), 1):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                ast.parse(block)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            return f"block {number} does not parse: {type(error).__name__}: {str(error)[:100]}"
    return None


def python_blocks(completion: str) -> list[str]:
    """Return the closed fenced blocks that are labelled Python, or not labelled, as the code judge reads them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        blocks = fenced_blocks(completion)
    return [block.code for block in blocks if block.closed and block.label in ("", *PYTHON)]
