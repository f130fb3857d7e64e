"""The step `deduplicate`: the first of equal rows is kept, and the first of nearly equal rows."""

import hashlib
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from pydantic import Field, PositiveInt

from smallwit.data.context import StepContext
from smallwit.data.normalise import numbers_in, squeezed_formula
from smallwit.data.row_access import batched, prompt_and_completion
from smallwit.data.step import DataStep
from smallwit.data.turns import split_answer, tools_text
from smallwit.recipe.section import Section
from smallwit.rows import Row

if TYPE_CHECKING:
    from smallwit.data.lsh import TextRecord

BATCH = 4096
"""Rows that are compared at once, and held meanwhile."""


class NearDuplicates(Section):
    """Near duplicates by MinHash (Broder 1997) over word shingles."""

    similarity: float = Field(
        default=0.8, gt=0, lt=1, description="share of common shingles from which rows are near duplicates"
    )
    words: PositiveInt = Field(default=3, description="words of a shingle")
    same_numbers: bool = Field(
        default=True, description="texts with other numbers, or another answer, are not near duplicates"
    )


class Deduplicate(DataStep):
    """Keep the first of equal rows, and of nearly equal rows.

    Equal rows have the same letters, digits and signs of arithmetic.
    """

    kind: Literal["deduplicate"] = Field(description="drop copies and near duplicates")
    by: Literal["prompt", "row"] = Field(
        default="row", description="what is compared: the prompt, or prompt and completion"
    )
    near: NearDuplicates | None = Field(
        default=NearDuplicates(), description="what near duplicates are; null drops equal rows only"
    )

    def rows(self, rows: Iterator[Row], context: StepContext) -> Iterator[Row]:
        """Yield the rows that repeat no earlier row. Only hashes are kept of a row, most of them on the disk."""
        from smallwit.data.lsh import MinHashIndex

        near = self.near
        with MinHashIndex(context.build, near.similarity if near is not None else None) as index:
            for batch in batched(rows, BATCH):
                duplicates = index.add([self.record(row) for row in batch])
                for row, duplicate in zip(batch, duplicates, strict=True):
                    if duplicate is None:
                        yield row
                    elif duplicate.equal:
                        context.drop(row, "equal", f"says the same as row {duplicate.name}")
                    else:
                        what = f"shares {duplicate.similarity:.0%} of its word runs with row {duplicate.name}"
                        context.drop(row, "near", what)
                context.resources.stop_if_asked()

    def record(self, row: Row) -> "TextRecord":
        """Return what the index compares of a row."""
        from smallwit.data.lsh import TextRecord

        prompt, completion = prompt_and_completion(row)
        parts = [prompt] if completion is None or self.by == "prompt" else [prompt, completion]
        structure = _structure(row)
        squeezed = [*map(squeezed_formula, parts), *([structure] if structure else [])]
        digest = hashlib.blake2b("\0".join(squeezed).encode("utf-8", "replace"), digest_size=16).digest()
        if self.near is None:
            return TextRecord(str(row["id"]), digest, (), "")
        text = "\n".join(parts)
        must_match = structure
        if self.near.same_numbers:
            must_match += json.dumps([numbers_in(text), row.get("answer")], sort_keys=True)
        return TextRecord(str(row["id"]), digest, shingles(text, self.near.words), must_match)


def _structure(row: Row) -> str:
    """Return what a conversation has beside its text: the roles and the tools."""
    prompt, _ = split_answer(row["messages"]) if row.get("messages") else ((), None)
    return " ".join(turn["role"] for turn in prompt) + tools_text(row)


def shingles(text: str, length: int) -> list[bytes]:
    """Return the shingles of `length` words of a text, as bytes; a shorter text is one shingle."""
    words = text.lower().split()
    return [" ".join(words[i : i + length]).encode("utf-8", "replace") for i in range(max(1, len(words) - length + 1))]
