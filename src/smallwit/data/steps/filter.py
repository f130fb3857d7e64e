"""The step `filter`: rows that break a rule are dropped, with the reason."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from smallwit.data.context import StepContext
from smallwit.data.row_access import batched
from smallwit.data.rule import FilterRule
from smallwit.data.step import DataStep
from smallwit.recipe.section import ByKind
from smallwit.rows import Row

BATCH = 256
"""Rows that are tested at once: verifiers and tokenizers work on many in parallel."""


class Filter(DataStep):
    """Drop rows by rules, in the order given. A row is dropped by the first rule that it breaks."""

    kind: Literal["filter"] = Field(description="drop rows by rules")
    rules: list[Annotated[FilterRule, ByKind()]] = Field(min_length=1, description="the rules, applied in this order")

    @property
    def uses_verifiers(self) -> bool:
        """Return whether a rule calls the verifiers."""
        return any(rule.uses_verifiers for rule in self.rules)

    @property
    def counts_tokens(self) -> bool:
        """Return whether a rule needs a tokenizer."""
        return any(rule.counts_tokens for rule in self.rules)

    def rows(self, rows: Iterator[Row], context: StepContext) -> Iterator[Row]:
        """Yield the rows that break no rule.

        Raises `UserError` when a rule needs a task or a tokenizer that is not there.
        """
        checks = [(rule.name, rule.row_check(context.resources)) for rule in self.rules]
        for batch in batched(rows, BATCH):
            for name, check in checks:
                reasons = check(batch)
                for row, reason in zip(batch, reasons, strict=True):
                    if reason is not None:
                        context.drop(row, name, reason)
                batch = [row for row, reason in zip(batch, reasons, strict=True) if reason is None]
            yield from batch
