"""Which of a problem's accepted answers are kept."""

import re
from collections.abc import Sequence

from smallwit.recipe.generation import Keep

_WORD = re.compile(r"\d+|[^\W\d]+|[^\w\s]")
_LONGEST_RUN = 3


def kept(answers: Sequence[str], keep: Keep) -> list[int]:
    """The places of the answers that are kept, in the order in which they were chosen. Equal texts count once.

    Length is in characters: teachers count tokens differently, and the shortest of some answers to one problem is the
    same by either. Ties go to the answer that comes first, so that the choice depends on the answers alone.
    """
    first: dict[str, int] = {}
    for place, answer in enumerate(answers):
        first.setdefault(answer.strip(), place)
    places = list(first.values())
    if keep.most is None:
        return places
    by_length = sorted(places, key=lambda place: (len(answers[place]), place))
    if keep.rule == "shortest" or len(by_length) <= keep.most:
        return by_length[: keep.most]
    if keep.rule == "mixed":
        last = len(by_length) - 1
        return [by_length[round(number * last / (keep.most - 1))] for number in range(keep.most)]
    return _diverse(by_length, answers, keep.most)


def _diverse(by_length: Sequence[int], answers: Sequence[str], count: int) -> list[int]:
    """The shortest, then always the one whose nearest neighbour among those taken is farthest (Gonzalez 1985)."""
    runs = {place: word_runs(answers[place]) for place in by_length}
    taken = [by_length[0]]
    nearest = {place: distance(runs[place], runs[taken[0]]) for place in by_length[1:]}
    while len(taken) < count:
        # The first of the farthest: `max` keeps the order of length.
        chosen = max(nearest, key=nearest.__getitem__)
        del nearest[chosen]
        taken.append(chosen)
        nearest = {place: min(near, distance(runs[place], runs[chosen])) for place, near in nearest.items()}
    return taken


def word_runs(text: str) -> frozenset[tuple[str, ...]]:
    """All runs of one to three words, numbers and signs of a text."""
    words = _WORD.findall(text)
    return frozenset(
        tuple(words[start : start + length])
        for length in range(1, _LONGEST_RUN + 1)
        for start in range(len(words) - length + 1)
    )


def distance(one: frozenset[tuple[str, ...]], other: frozenset[tuple[str, ...]]) -> float:
    """Jaccard's distance of two sets of runs: 0 for the same runs, 1 for none in common."""
    union = len(one | other)
    return 1 - len(one & other) / union if union else 0.0
