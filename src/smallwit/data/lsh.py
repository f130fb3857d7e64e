"""Locality-sensitive hashing for millions of texts: 8 bytes of memory a text and band, everything else on the disk.

MinHash is datasketch's. Its own index takes some kilobytes a text, as Python objects. This index has, for each band, a
sorted array of integers (the upper bits are a hash, the lower bits a row), and reads each candidate in a scratch file
to confirm it.
"""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from datasketch import MinHash
from numpy.typing import NDArray

from smallwit.data.normalise import text_hash

PERMUTATIONS = 128
ROWS_IN_BAND = 6
"""20 bands of 6 rows: two texts that share 80 % of their shingles collide with probability 0.998, with 50 % in 0.27."""
BANDS = PERMUTATIONS // ROWS_IN_BAND - 1
_ROW_BITS = 28
_ROW_MASK = np.uint64((1 << _ROW_BITS) - 1)
_DIGEST_BYTES, _NAME_BYTES = 16, 64
_RECORD_BYTES = _DIGEST_BYTES + PERMUTATIONS + _NAME_BYTES
_CANDIDATES = 16
"""Earlier texts of one band that are compared, at most: a band that more texts share is uninformative."""
Numbers = NDArray[np.uint64]


class SortedMultiset:
    """A growing multiset of integers: a few sorted arrays, each at least twice as large as the next."""

    def __init__(self) -> None:
        self.arrays: list[Numbers] = []

    def add(self, numbers: Numbers) -> None:
        """Add integers, in any order."""
        merged = np.sort(numbers)
        while self.arrays and self.arrays[-1].size < 2 * merged.size:
            merged = np.sort(np.concatenate([self.arrays.pop(), merged]), kind="stable")
        self.arrays.append(merged)

    def rows(self, heads: Numbers) -> list[tuple[int, int]]:
        """Return pairs (index in `heads`, row) of the first few rows that have these heads as their upper bits."""
        found: list[tuple[int, int]] = []
        for array in self.arrays:
            places = np.searchsorted(array, heads << np.uint64(_ROW_BITS))
            for step in range(_CANDIDATES):
                at = np.minimum(places + step, array.size - 1)
                hits = np.flatnonzero((array[at] >> np.uint64(_ROW_BITS) == heads) & (places + step < array.size))
                if not hits.size:
                    break
                found += zip(hits.tolist(), (array[at[hits]] & _ROW_MASK).tolist(), strict=True)
        return found


class Duplicate(NamedTuple):
    """The earlier text that a text repeats: its name, their similarity (0..1), and whether they are equal."""

    name: str
    similarity: float
    equal: bool


class TextRecord:
    """A text as the index sees it: the digest of equal texts, its shingles, and what near duplicates share exactly."""

    __slots__ = ("digest", "must_match", "name", "shingles")

    def __init__(self, name: str, digest: bytes, shingles: Sequence[bytes], must_match: str) -> None:
        self.name, self.digest, self.shingles, self.must_match = name, digest, shingles, must_match


class MinHashIndex:
    """The texts that were kept, to find duplicates among later ones. A context manager, which owns the scratch file."""

    def __init__(self, folder: Path, similarity: float | None) -> None:
        """`similarity` is the share of common shingles of near duplicates; `None` finds equal texts only."""
        self.similarity = similarity
        self.file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  closed by __exit__
        self.size = 0
        self.bands = [SortedMultiset() for _ in range(1 + (BANDS if similarity is not None else 0))]

    def __enter__(self) -> "MinHashIndex":
        return self

    def __exit__(self, *ended: object) -> None:
        self.file.close()

    @property
    def memory(self) -> int:
        """Return the bytes of the arrays in memory."""
        return sum(array.nbytes for band in self.bands for array in band.arrays)

    def add(self, texts: Sequence[TextRecord]) -> list[Duplicate | None]:
        """Return for each text the earlier one that it repeats. A text that repeats none (`None`) is added."""
        signatures = self._signatures(texts)
        heads = self._heads(texts, signatures)
        candidates: list[dict[int, None]] = [{} for _ in texts]
        for band, rows_of_band in enumerate(self.bands):
            for place, row in rows_of_band.rows(heads[:, band]):
                candidates[place][row] = None
        first, records = self.size, bytearray()
        fresh: list[dict[int, list[int]]] = [{} for _ in self.bands]
        duplicates: list[Duplicate | None] = []
        kept: list[int] = []
        heads_of = heads.tolist()
        for place, text in enumerate(texts):
            for band, head in enumerate(heads_of[place]):
                candidates[place].update(dict.fromkeys(fresh[band].get(head, ())[:_CANDIDATES]))
            record = text.digest + signatures[place].tobytes() + _padded(text.name)
            duplicate = self._best(record, [self._record(row, first, records) for row in candidates[place]])
            duplicates.append(duplicate)
            if duplicate is None:
                for band, head in enumerate(heads_of[place]):
                    fresh[band].setdefault(head, []).append(first + len(kept))
                kept.append(place)
                records += record
        self.file.seek(0, os.SEEK_END)
        self.file.write(records)
        self.file.flush()
        rows = np.arange(first, first + len(kept), dtype=np.uint64)
        for band, rows_of_band in enumerate(self.bands):
            if kept:
                rows_of_band.add(heads[kept, band] << np.uint64(_ROW_BITS) | rows)
        self.size += len(kept)
        return duplicates

    def _signatures(self, texts: Sequence[TextRecord]) -> NDArray[np.uint8]:
        """Return the low byte of MinHash values `[T, PERMUTATIONS]` (b-bit MinHash; Li and König 2010,
        arXiv 0910.3349).
        """
        if self.similarity is None:
            self._values = np.zeros((len(texts), PERMUTATIONS), dtype=np.uint32)
        else:
            made = MinHash.generator(
                [text.shingles for text in texts], num_perm=PERMUTATIONS, seed=1, scheme="affine32"
            )
            self._values = np.stack([sketch.hashvalues for sketch in made]).astype(np.uint32)
        return self._values.astype(np.uint8)

    def _heads(self, texts: Sequence[TextRecord], signatures: NDArray[np.uint8]) -> Numbers:
        """Return the upper bits of each text in each band `[T, 1 + BANDS]`; the first band is of whole texts."""
        heads = np.empty((len(texts), len(self.bands)), dtype=np.uint64)
        heads[:, 0] = [int.from_bytes(text.digest[:8], "big") for text in texts]
        if self.similarity is not None:
            numbers = np.array([text_hash(text.must_match) for text in texts], dtype=np.uint64)
            for band in range(BANDS):
                mixed = numbers + np.uint64(band)
                for column in range(band * ROWS_IN_BAND, (band + 1) * ROWS_IN_BAND):
                    mixed = (mixed ^ self._values[:, column]) * np.uint64(0x9E3779B97F4A7C15)
                    mixed ^= mixed >> np.uint64(29)
                heads[:, 1 + band] = mixed
        return heads >> np.uint64(_ROW_BITS)

    def _record(self, row: int, first: int, records: bytearray) -> bytes:
        if row >= first:
            start = (row - first) * _RECORD_BYTES
            return bytes(records[start : start + _RECORD_BYTES])
        return os.pread(self.file.fileno(), _RECORD_BYTES, row * _RECORD_BYTES)

    def _best(self, record: bytes, others: Sequence[bytes]) -> Duplicate | None:
        """Return the most similar of the candidates, if it is similar enough."""
        best: Duplicate | None = None
        mine = np.frombuffer(record, np.uint8)[_DIGEST_BYTES : _DIGEST_BYTES + PERMUTATIONS]
        for other in others:
            name = other[_DIGEST_BYTES + PERMUTATIONS :].rstrip(b"\0").decode(errors="replace")
            if other[:_DIGEST_BYTES] == record[:_DIGEST_BYTES]:
                return Duplicate(name, 1.0, equal=True)
            if self.similarity is None:
                continue
            theirs = np.frombuffer(other, np.uint8)[_DIGEST_BYTES : _DIGEST_BYTES + PERMUTATIONS]
            equal = float(np.mean(mine == theirs))
            # Bytes agree by chance once in 256.
            similar = max(0.0, (equal - 1 / 256) / (1 - 1 / 256))
            if similar >= self.similarity and (best is None or similar > best.similarity):
                best = Duplicate(name, similar, equal=False)
        return best


def _padded(name: str) -> bytes:
    return name.encode("utf-8", "replace")[:_NAME_BYTES].ljust(_NAME_BYTES, b"\0")
