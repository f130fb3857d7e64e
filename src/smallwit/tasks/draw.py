"""A part of a split: the first problems of a fixed random order.

Published splits are often sorted (MATH by subject), so their first rows are no sample of them. A part is therefore the
first n of an order by a hash of each problem's id. The order depends on the ids alone: it is the same for all models,
runs and seeds, and a part of 100 lies within a part of 200.
"""

import hashlib
import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Literal, TypeVar

from smallwit.errors import UserError
from smallwit.tasks.base import Problem, Task

Item = TypeVar("Item")
Order = Literal["drawn", "given"]
"""`drawn`: in the order of the draw; `given`: as the rows stand."""

LONGEST_STREAM = 200_000
"""Problems of a stream that are read for a draw: a longer one may be endless."""
_LABEL = b"smallwit draw\0"


class DrawKeys:
    """Sort keys of the draw by id. Rows that share an id have different keys by the number of their appearance."""

    def __init__(self) -> None:
        self._seen: Counter[bytes] = Counter()

    def key(self, name: str) -> bytes:
        """Return the key of the next row with the id `name`."""
        own = _digest(name.encode())
        self._seen[own] += 1
        return own if self._seen[own] == 1 else _digest(own + str(self._seen[own]).encode())


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(_LABEL + data, digest_size=16).digest()


def sample(rows: Iterable[Item], count: int, name: Callable[[Item], str]) -> list[Item]:
    """Return the first `count` of an iterable in the order of the draw, by the id that `name` gives.

    No more than `count` rows are kept while it is read. A whole of no more rows is returned as it stands.
    """
    keys = DrawKeys()
    kept: list[tuple[int, int, Item]] = []
    number = -1
    for number, row in enumerate(rows):
        entry = (-int.from_bytes(keys.key(name(row))), number, row)
        if len(kept) < count:
            heapq.heappush(kept, entry)
        else:
            heapq.heappushpop(kept, entry)
    kept.sort(key=lambda entry: entry[1] if number < count else -entry[0])
    return [row for _, _, row in kept]


def drawn(rows: Sequence[Problem]) -> list[Problem]:
    """Return all rows in the order of the draw."""
    keys = DrawKeys()
    return [row for _, row in sorted(((keys.key(row.id), row) for row in rows), key=lambda pair: pair[0])]


def part(rows: Sequence[Problem], count: int | None, *, skip: int = 0, order: Order = "drawn") -> Sequence[Problem]:
    """Return `count` rows after the first `skip` of an order, all rows if `count` is absent.

    The whole is returned as it stands.
    """
    end = None if count is None else skip + count
    if order == "given" or (skip == 0 and (end is None or end >= len(rows))):
        return rows[skip:end]
    return drawn(rows)[skip:end]


def part_of(
    task: Task, split: str, count: int | None = None, *, skip: int = 0, order: Order = "drawn"
) -> Sequence[Problem]:
    """Return `count` problems of a split after the first `skip` of an order. Raises `UserError` as `ordered` does."""
    rows = ordered(task, split, count, skip=skip, order=order)
    # A whole split is not sliced: it may make its problems when they are asked for.
    return rows if count is None and skip == 0 else rows[skip : None if count is None else skip + count]


def ordered(
    task: Task, split: str, count: int | None = None, *, skip: int = 0, order: Order = "drawn"
) -> Sequence[Problem]:
    """Return the problems of a split in an order such that `[skip:skip + count]` is the part.

    Problems that are exchangeable are a fair draw as they stand, and are not read before they are asked for. A stream
    is read up to the end of the part if they are, or if the order is `given`, else to its own end. Raises `UserError`
    for a longer stream than a draw can read.
    """
    problems = task.problems(split)
    end = None if count is None else skip + count
    stands = order == "given" or task.exchangeable
    if not isinstance(problems, Sequence):
        whole = end is None and (stands or skip == 0)
        problems = list(problems) if whole else list(islice(problems, end if stands else LONGEST_STREAM + 1))
        if not whole and not stands and len(problems) > LONGEST_STREAM:
            raise UserError(
                f"task {task.name}: its {split} split is a stream of more than {LONGEST_STREAM:,} problems, too long "
                "to draw a part of it; give a sequence, set `exchangeable = True` in the task if its problems are "
                "random draws, or take the first ones (order: given)"
            )
    if stands or (skip == 0 and (end is None or end >= len(problems))):
        return problems
    return drawn(problems)


def order_of(task: Task, split: str, count: int | None, order: Order) -> Order | None:
    """Return the order by which `count` problems of a split are a part of it.

    `None` if they are the whole split, or exchangeable: then every order gives an equally fair part.
    """
    if count is None or task.exchangeable:
        return None
    problems = task.problems(split)
    total = len(problems) if isinstance(problems, Sequence) else sum(1 for _ in islice(problems, count + 1))
    return order if total > count else None
