"""The plan of a stage in words: the problems that it reads by task and stratum, and how often it passes each."""

from collections import Counter
from collections.abc import Iterator, Sequence
from math import ceil

from smallwit.tasks.base import Problem, Task
from smallwit.training.problem_stream import Mixture, TaskProblems, Weights, weight_of
from smallwit.training.settings import Demonstrations, Rollouts

_SHOWN_STRATA = 12


def source_items(spec: Demonstrations | Rollouts, steps: int) -> int:
    """Return how many problems of its stream a source reads in so many steps, without resampling."""
    return steps * spec.batch if isinstance(spec, Demonstrations) else ceil(steps / spec.updates) * spec.prompts


def epoch_items(epochs: float, size: int) -> int:
    """Return the items of `epochs` passes over a stream of `size` problems, at least one."""
    return max(1, round(epochs * size))


def source_lines(
    what: str,
    problems: Sequence[TaskProblems],
    weights: Weights,
    items: int | None,
    *,
    most: bool = False,
    fewest: bool = False,
) -> Iterator[str]:
    """Yield lines on what `what` reads, as "gsm8k 7,099 problems, 1.2 epochs".

    `items` is the number of problems that it reads in all, where that is known. With `most` an earlier stage makes the
    rows, and there are these many at most; with `fewest` the epochs are the fewest, then.
    """
    shares: Sequence[int | None] = [None] * len(problems)
    if items is not None:
        shares = Mixture([weight_of(each, weights) for each in problems]).shares(items)
    found = []
    for each, share in zip(problems, shares, strict=True):
        text = f"{each.task.name} {each.size:,} problem{'s' if each.size > 1 else ''}"
        found.append(text if share is None else f"{text}, {_epochs(share / each.size)}{' or more' if fewest else ''}")
    yield f"{what} reads {'at most ' if most else ''}{'; '.join(found)}"
    for each in problems:
        if isinstance(each.rows, list | tuple):
            yield from stratum_lines(f"{what}, {each.task.name}", each.rows[each.first : each.first + each.size])


def stratum_lines(what: str, problems: Sequence[Problem]) -> Iterator[str]:
    """Yield a line for each kind of stratum of the problems: how many are in each, the most frequent first."""
    counts: dict[str, Counter[str]] = {}
    for problem in problems:
        for name, value in problem.strata:
            counts.setdefault(name, Counter())[value] += 1
    for name, of in counts.items():
        common = of.most_common(_SHOWN_STRATA)
        more = f", and {len(of) - len(common)} more" if len(of) > len(common) else ""
        yield f"{what} by {name}: {', '.join(f'{value} ({count:,})' for value, count in common)}{more}"


def split_size(task: Task, split: str) -> int | None:
    """Return the number of problems of a split, if it is a sequence."""
    problems = task.problems(split)
    return len(problems) if isinstance(problems, Sequence) else None


def part_lines(what: str, task: str, part: Sequence[Problem], total: int | None) -> Iterator[str]:
    """Yield lines on a part of a split that is measured; `total` is the size of the split, if known."""
    of = f" of {total:,}" if total is not None and total > len(part) else ""
    yield f"{what}: {task} {len(part):,}{of} problems"
    if isinstance(part, list | tuple):
        yield from stratum_lines(f"{what}, {task}", part)


def _epochs(number: float) -> str:
    return f"{number:.1f} epochs" if number >= 0.1 else f"{number:.2g} epochs"
