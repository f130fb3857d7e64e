"""The filter rule `length`."""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field, PositiveInt, model_validator

from smallwit.data.context import Resources
from smallwit.data.row_access import prompt_and_completion
from smallwit.data.rule import FilterRule, RowCheck
from smallwit.rows import Row


class LengthRule(FilterRule):
    """The length is within bounds, in characters or in tokens of the stage's tokenizer."""

    kind: Literal["length"] = Field(description="the length is within bounds")
    of: Literal["prompt", "completion", "both"] = Field(default="both", description="the text that is measured")
    min_characters: PositiveInt | None = Field(default=None, description="characters, at least")
    max_characters: PositiveInt | None = Field(default=None, description="characters, at most")
    min_tokens: PositiveInt | None = Field(default=None, description="tokens, at least")
    max_tokens: PositiveInt | None = Field(default=None, description="tokens, at most")

    @model_validator(mode="after")
    def _some_bound(self) -> "LengthRule":
        bounds = (self.min_characters, self.max_characters, self.min_tokens, self.max_tokens)
        if not any(bounds):
            raise ValueError("a length rule needs a bound: min_characters, max_characters, min_tokens or max_tokens")
        for low, high in (bounds[:2], bounds[2:]):
            if low is not None and high is not None and low > high:
                raise ValueError(f"the least length {low} is above the largest, {high}")
        return self

    @property
    def counts_tokens(self) -> bool:
        """Return whether there is a bound in tokens."""
        return self.min_tokens is not None or self.max_tokens is not None

    def row_check(self, resources: Resources) -> RowCheck:
        """Return the test of a batch, which tokenizes all of its rows at once."""

        def check(rows: Sequence[Row]) -> list[str | None]:
            texts = [self._measured(*prompt_and_completion(row)) for row in rows]
            lengths = {"characters": [len(text) for text in texts]}
            if self.counts_tokens:
                ids = resources.tokenizer(texts, add_special_tokens=False)["input_ids"]
                lengths["tokens"] = [len(each) for each in ids]
            return [self._out_of_bounds({unit: each[i] for unit, each in lengths.items()}) for i in range(len(rows))]

        return check

    def _measured(self, prompt: str, completion: str | None) -> str:
        if self.of == "prompt":
            return prompt
        return (completion or "") if self.of == "completion" else f"{prompt}\n{completion or ''}"

    def _out_of_bounds(self, lengths: dict[str, int]) -> str | None:
        for unit, length in lengths.items():
            low, high = getattr(self, f"min_{unit}"), getattr(self, f"max_{unit}")
            if low is not None and length < low:
                return f"{self.of}: {length:,} {unit}, at least {low:,} are asked for"
            if high is not None and length > high:
                return f"{self.of}: {length:,} {unit}, at most {high:,} are allowed"
        return None
