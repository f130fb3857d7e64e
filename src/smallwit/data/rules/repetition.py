"""The filter rule `repetition`."""

import zlib
from typing import Literal

from pydantic import Field

from smallwit.data.rule import FilterRule

_NGRAM = 6
_MIN_CHARACTERS = 400


def repetition_reason(text: str, share: float, compression: float) -> str | None:
    """Return why a text is repetitive, or `None`: repeated word n-grams, or a high zlib compression ratio.

    Short texts pass: an answer may repeat its question.
    """
    if len(text) < _MIN_CHARACTERS:
        return None
    words = text.split()
    runs = [tuple(words[i : i + _NGRAM]) for i in range(len(words) - _NGRAM + 1)]
    if runs:
        again = 1 - len(set(runs)) / len(runs)
        if again > share:
            return f"{again:.0%} of its runs of {_NGRAM} words came before"
    raw = text.encode("utf-8", "replace")
    times = len(raw) / len(zlib.compress(raw))
    return f"compresses {times:.1f} times" if times > compression else None


class RepetitionRule(FilterRule):
    """The text is not degenerate: it does not repeat itself again and again."""

    kind: Literal["repetition"] = Field(description="the text does not repeat itself")
    share: float = Field(default=0.6, gt=0, le=1, description="share of repeated 6-grams of words, at most")
    compression: float = Field(default=6.0, gt=1, description="compression ratio of zlib, at most")

    def violation(self, prompt: str, completion: str | None) -> str | None:
        """Return why the completion, or the prompt without one, is repetitive; or `None`."""
        return repetition_reason(completion or prompt, self.share, self.compression)
