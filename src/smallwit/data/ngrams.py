"""Texts as words for the search of copies, and the hashes of all their runs at once."""

import re
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from smallwit.data.normalise import text_hash

_WORD = re.compile(r"[^\W\d_]+|\d+")
_THOUSANDS = re.compile(r"(?<=\d)(?:,|\{,\}|\\,)(?=\d{3}(?!\d))")
# LaTeX that changes how a formula looks and not what it says.
_LOOK = re.compile(r"\\(?:left|right|big[lr]?|displaystyle|textstyle|limits|quad|qquad|hspace\{[^}]*\})(?![A-Za-z])")
_FIGURE = re.compile(r"\[asy\].*?\[/asy\]", re.DOTALL)
_FRACTION = re.compile(r"\\[dtc]frac(?![A-Za-z])")
_BASE = 0x9E3779B97F4A7C15
_BASE_INVERSE = pow(_BASE, -1, 1 << 64)
Hashes = NDArray[np.uint64]


def words_of(text: str) -> list[str]:
    """The words and numbers of a text in lower case: signs, marks and spacing are dropped, `2x` is `2 x`, `1,000` is
    `1000`, drawings are left out, and of LaTeX what only changes a formula's look."""
    text = _FIGURE.sub(" ", text.lower())
    if "\\" in text:
        text = _FRACTION.sub(r"\\frac", _LOOK.sub(" ", text))
    return _WORD.findall(_THOUSANDS.sub("", text))


class RunHasher:
    """Hashes of runs of words, as polynomials modulo 2^64 with a random number for each word of a known vocabulary.

    Words that are not in it are all one word, which no known run holds.
    """

    def __init__(self, vocabulary: Iterable[str]) -> None:
        self._numbers = {word: text_hash(word) for word in vocabulary}
        self._unknown = text_hash("\0unknown")
        self._powers = self._inverses = np.ones(1, dtype=np.uint64)

    def prefixes(self, words: Sequence[str]) -> Hashes:
        """What the hashes of a text's runs are differences of `[W + 1]`."""
        numbers = np.array([self._numbers.get(word, self._unknown) for word in words], dtype=np.uint64)
        if len(words) > self._powers.size:
            self._powers = _powers_of(_BASE, 2 * len(words))
            self._inverses = _powers_of(_BASE_INVERSE, 2 * len(words))
        prefixes = np.zeros(len(words) + 1, dtype=np.uint64)
        np.cumsum(numbers * self._powers[: len(words)], out=prefixes[1:])
        return prefixes

    def runs(self, prefixes: Hashes, length: int) -> Hashes:
        """The hash of each run of `length` words `[W - length + 1]`; none when the text is shorter."""
        count = max(0, prefixes.size - length)
        return (prefixes[prefixes.size - count :] - prefixes[:count]) * self._inverses[:count]

    def run(self, words: Sequence[str]) -> int:
        """The hash of these words as one run."""
        return int(self.runs(self.prefixes(words), len(words))[0])


def _powers_of(base: int, count: int) -> Hashes:
    factors = np.full(count, base, dtype=np.uint64)
    factors[0] = 1
    return np.cumprod(factors, dtype=np.uint64)
