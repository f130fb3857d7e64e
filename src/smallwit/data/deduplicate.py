"""Step 6: the first of equal rows stays, and of rows that are nearly equal."""

import hashlib
import json
from collections.abc import Iterator
from itertools import islice

from smallwit.data.lsh import Index, Text
from smallwit.data.normalise import numbers_in, squeezed_formula
from smallwit.data.step import Context, texts
from smallwit.data.turns import asked_and_answered, tools_text
from smallwit.recipe.data import Deduplicate
from smallwit.rows import Row

BATCH = 4096
"""Rows that are compared at once, and held meanwhile."""


class DeduplicateStep:
    """Equal means: the same letters, digits and signs of arithmetic. Nearly equal: see `Near`."""

    def __init__(self, spec: Deduplicate) -> None:
        self.spec = spec

    def rows(self, rows: Iterator[Row], context: Context) -> Iterator[Row]:
        """Streams; what is kept of a row is its hash, on the disk its sketch."""
        near = self.spec.near
        with Index(context.build, near.similarity if near is not None else None) as index:
            while batch := list(islice(rows, BATCH)):
                verdicts = index.sift([self._text(row) for row in batch])
                for row, verdict in zip(batch, verdicts, strict=True):
                    if verdict is None:
                        yield row
                    elif verdict.equal:
                        context.drop(row, "equal", f"says the same as row {verdict.name}")
                    else:
                        context.drop(
                            row, "near", f"shares {verdict.similarity:.0%} of its word runs with row {verdict.name}"
                        )
                context.resources.stop_if_asked()

    def _text(self, row: Row) -> Text:
        prompt, completion = texts(row)
        parts = [prompt] if completion is None or self.spec.by == "prompt" else [prompt, completion]
        frame = _frame(row)
        squeezed = [*map(squeezed_formula, parts), *([frame] if frame else [])]
        digest = hashlib.blake2b("\0".join(squeezed).encode("utf-8", "replace"), digest_size=16).digest()
        if self.spec.near is None:
            return Text(str(row["id"]), digest, (), "")
        whole = "\n".join(parts)
        numbers = frame
        if self.spec.near.same_numbers:
            numbers += json.dumps([numbers_in(whole), row.get("answer")], sort_keys=True)
        return Text(str(row["id"]), digest, runs(whole, self.spec.near.words), numbers)


def _frame(row: Row) -> str:
    """What of a conversation is not its text: who asks what, and the tools."""
    asked, _ = asked_and_answered(row["messages"]) if row.get("messages") else ((), None)
    return " ".join(turn["role"] for turn in asked) + tools_text(row)


def runs(text: str, length: int) -> list[bytes]:
    """The runs of so many words in a text, as bytes; a shorter text is one run."""
    words = text.lower().split()
    return [" ".join(words[i : i + length]).encode("utf-8", "replace") for i in range(max(1, len(words) - length + 1))]
