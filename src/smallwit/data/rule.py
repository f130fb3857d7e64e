"""The base of the rules of the step `filter`."""

from collections.abc import Callable, Sequence
from typing import ClassVar

from smallwit.data.context import Resources
from smallwit.data.row_access import prompt_and_completion
from smallwit.recipe.section import Section
from smallwit.rows import Row

RowCheck = Callable[[Sequence[Row]], list[str | None]]
"""Returns for each row why it breaks the rule, or `None`."""


class FilterRule(Section):
    """A rule of the filter: its settings and its test of a row.

    A subclass with a field `kind: Literal["..."]`, in a module of `smallwit.data.rules`, is a rule that recipes can
    name. It implements `violation`, or `row_check` where rows are tested in batches.
    """

    kinds_in: ClassVar[tuple[str, ...]] = ("smallwit.data.rules",)

    @property
    def name(self) -> str:
        """Return the rule's name in the account of dropped rows."""
        return str(self.kind)  # type: ignore[attr-defined]

    @property
    def uses_verifiers(self) -> bool:
        """Return whether the rule calls the verifiers of the rows' tasks."""
        return False

    @property
    def counts_tokens(self) -> bool:
        """Return whether the rule needs a tokenizer."""
        return False

    def violation(self, prompt: str, completion: str | None) -> str | None:
        """Return why a row breaks the rule, or `None`."""
        raise NotImplementedError

    def row_check(self, resources: Resources) -> RowCheck:
        """Return the test of a batch of rows, for one build."""
        return lambda rows: [self.violation(*prompt_and_completion(row)) for row in rows]


class CompletionRule(FilterRule):
    """Base of the rules on completions alone."""

    def violation(self, prompt: str, completion: str | None) -> str | None:
        """Return why a row breaks the rule, or `None`."""
        return "has no completion" if completion is None else self.completion_violation(completion)

    def completion_violation(self, completion: str) -> str | None:
        """Return why a completion breaks the rule, or `None`."""
        raise NotImplementedError
