"""Locality-sensitive hashing for millions of texts: 8 bytes of memory a text and band, everything else on the disk.

The MinHash itself is datasketch's. Its index keeps Python objects, some kilobytes a text; this one keeps, for each
band, sorted numbers that are half hash and half row, and looks a candidate up in a scratch file before it is believed.
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
"""20 bands of 6: two texts that share 80 % of their runs meet in a band with probability 0.998, with 50 % in 0.27."""
BANDS = PERMUTATIONS // ROWS_IN_BAND - 1
_ROW_BITS = 28
_ROW_MASK = np.uint64((1 << _ROW_BITS) - 1)
_DIGEST_BYTES, _NAME_BYTES = 16, 64
_RECORD_BYTES = _DIGEST_BYTES + PERMUTATIONS + _NAME_BYTES
_CANDIDATES = 16
"""So many earlier texts of one band are looked at; bands that more share are of text that says little."""
Numbers = NDArray[np.uint64]


class Runs:
    """A growing multiset of numbers, as a few sorted arrays of sizes that at least double."""

    def __init__(self) -> None:
        self.arrays: list[Numbers] = []

    def add(self, numbers: Numbers) -> None:
        """Add numbers, in any order."""
        merged = np.sort(numbers)
        while self.arrays and self.arrays[-1].size < 2 * merged.size:
            merged = np.sort(np.concatenate([self.arrays.pop(), merged]), kind="stable")
        self.arrays.append(merged)

    def rows(self, heads: Numbers) -> list[tuple[int, int]]:
        """Pairs (place in `heads`, row): the rows that were added under these heads (the upper bits), the first few."""
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


class Repeat(NamedTuple):
    """The earlier text that one repeats: its name, how much they share (0..1), and whether they are the same."""

    name: str
    similarity: float
    equal: bool


class Text:
    """A text on its way into the index: what makes it equal, its runs of words, and what it must share beside them."""

    __slots__ = ("digest", "name", "numbers", "runs")

    def __init__(self, name: str, digest: bytes, runs: Sequence[bytes], numbers: str) -> None:
        self.name, self.digest, self.runs, self.numbers = name, digest, runs, numbers


class Index:
    """Texts that were kept, to be compared with later ones. Use as a context manager: the scratch file goes with it."""

    def __init__(self, folder: Path, similarity: float | None) -> None:
        """`similarity` is the share of common runs from which two texts are one; `None` compares whole texts only."""
        self.similarity = similarity
        self.file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  closed by __exit__
        self.size = 0
        self.bands = [Runs() for _ in range(1 + (BANDS if similarity is not None else 0))]

    def __enter__(self) -> "Index":
        return self

    def __exit__(self, *ended: object) -> None:
        self.file.close()

    @property
    def memory(self) -> int:
        """Bytes of the numbers in memory."""
        return sum(array.nbytes for band in self.bands for array in band.arrays)

    def sift(self, texts: Sequence[Text]) -> list[Repeat | None]:
        """For each text the earlier one that it repeats; `None` says that there is none, and adds it."""
        signatures = self._signatures(texts)
        heads = self._heads(texts, signatures)
        candidates: list[dict[int, None]] = [{} for _ in texts]
        for band, runs in enumerate(self.bands):
            for place, row in runs.rows(heads[:, band]):
                candidates[place][row] = None
        first, records = self.size, bytearray()
        fresh: list[dict[int, list[int]]] = [{} for _ in self.bands]
        verdicts: list[Repeat | None] = []
        kept: list[int] = []
        heads_of = heads.tolist()
        for place, text in enumerate(texts):
            for band, head in enumerate(heads_of[place]):
                candidates[place].update(dict.fromkeys(fresh[band].get(head, ())[:_CANDIDATES]))
            record = text.digest + signatures[place].tobytes() + _padded(text.name)
            verdict = self._best(record, [self._record(row, first, records) for row in candidates[place]])
            verdicts.append(verdict)
            if verdict is None:
                for band, head in enumerate(heads_of[place]):
                    fresh[band].setdefault(head, []).append(first + len(kept))
                kept.append(place)
                records += record
        self.file.seek(0, os.SEEK_END)
        self.file.write(records)
        self.file.flush()
        rows = np.arange(first, first + len(kept), dtype=np.uint64)
        for band, runs in enumerate(self.bands):
            if kept:
                runs.add(heads[kept, band] << np.uint64(_ROW_BITS) | rows)
        self.size += len(kept)
        return verdicts

    def _signatures(self, texts: Sequence[Text]) -> NDArray[np.uint8]:
        """One byte of each MinHash value `[T, PERMUTATIONS]` (b-bit MinHash; Li and König 2010, arXiv 0910.3349)."""
        if self.similarity is None:
            self._values = np.zeros((len(texts), PERMUTATIONS), dtype=np.uint32)
        else:
            made = MinHash.generator([text.runs for text in texts], num_perm=PERMUTATIONS, seed=1, scheme="affine32")
            self._values = np.stack([sketch.hashvalues for sketch in made]).astype(np.uint32)
        return self._values.astype(np.uint8)

    def _heads(self, texts: Sequence[Text], signatures: NDArray[np.uint8]) -> Numbers:
        """The upper bits under which each text stands in each band `[T, 1 + BANDS]`, that of the whole text first."""
        heads = np.empty((len(texts), len(self.bands)), dtype=np.uint64)
        heads[:, 0] = [int.from_bytes(text.digest[:8], "big") for text in texts]
        if self.similarity is not None:
            numbers = np.array([text_hash(text.numbers) for text in texts], dtype=np.uint64)
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

    def _best(self, record: bytes, others: Sequence[bytes]) -> Repeat | None:
        """The most similar of the candidates, if it is similar enough."""
        best: Repeat | None = None
        mine = np.frombuffer(record, np.uint8)[_DIGEST_BYTES : _DIGEST_BYTES + PERMUTATIONS]
        for other in others:
            name = other[_DIGEST_BYTES + PERMUTATIONS :].rstrip(b"\0").decode(errors="replace")
            if other[:_DIGEST_BYTES] == record[:_DIGEST_BYTES]:
                return Repeat(name, 1.0, equal=True)
            if self.similarity is None:
                continue
            theirs = np.frombuffer(other, np.uint8)[_DIGEST_BYTES : _DIGEST_BYTES + PERMUTATIONS]
            equal = float(np.mean(mine == theirs))
            # Bytes agree by chance once in 256.
            similar = max(0.0, (equal - 1 / 256) / (1 - 1 / 256))
            if similar >= self.similarity and (best is None or similar > best.similarity):
                best = Repeat(name, similar, equal=False)
        return best


def _padded(name: str) -> bytes:
    return name.encode("utf-8", "replace")[:_NAME_BYTES].ljust(_NAME_BYTES, b"\0")
