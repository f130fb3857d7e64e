"""Words of a text for the search of copies, and the hashes of all its n-grams at once."""

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
    """Return the words and numbers of a text in lower case.

    Signs, marks, spacing, drawings and LaTeX's layout commands are dropped; `2x` is `2 x`, `1,000` is `1000`.
    """
    text = _FIGURE.sub(" ", text.lower())
    if "\\" in text:
        text = _FRACTION.sub(r"\\frac", _LOOK.sub(" ", text))
    return _WORD.findall(_THOUSANDS.sub("", text))


class NgramHasher:
    """Rolling hashes of word n-grams: polynomials modulo 2^64 with a random number for each word of a vocabulary.

    All words outside of the vocabulary are one unknown word.
    """

    def __init__(self, vocabulary: Iterable[str]) -> None:
        self._numbers = {word: text_hash(word) for word in vocabulary}
        self._unknown = text_hash("\0unknown")
        self._powers = self._inverses = np.ones(1, dtype=np.uint64)

    def prefixes(self, words: Sequence[str]) -> Hashes:
        """Return the prefix sums `[W + 1]` of a text of W words; n-gram hashes are their differences."""
        numbers = np.array([self._numbers.get(word, self._unknown) for word in words], dtype=np.uint64)
        if len(words) > self._powers.size:
            self._powers = _powers_of(_BASE, 2 * len(words))
            self._inverses = _powers_of(_BASE_INVERSE, 2 * len(words))
        prefixes = np.zeros(len(words) + 1, dtype=np.uint64)
        np.cumsum(numbers * self._powers[: len(words)], out=prefixes[1:])
        return prefixes

    def ngrams(self, prefixes: Hashes, length: int) -> Hashes:
        """Return the hashes of all n-grams of `length` words `[W - length + 1]`; empty for a shorter text."""
        count = max(0, prefixes.size - length)
        return (prefixes[prefixes.size - count :] - prefixes[:count]) * self._inverses[:count]

    def ngram(self, words: Sequence[str]) -> int:
        """Return the hash of these words as one n-gram."""
        return int(self.ngrams(self.prefixes(words), len(words))[0])


def _powers_of(base: int, count: int) -> Hashes:
    factors = np.full(count, base, dtype=np.uint64)
    factors[0] = 1
    return np.cumprod(factors, dtype=np.uint64)
