"""The choice of which of a problem's accepted answers are kept."""

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PositiveInt, model_validator

from smallwit.recipe.section import Section

_WORD = re.compile(r"\d+|[^\W\d]+|[^\w\s]")
_MAX_NGRAM = 3


class ResponseSelection(Section):
    """Which of a problem's accepted answers are kept. In a recipe a plain name is short for `rule`."""

    rule: Literal["all", "shortest", "diverse", "mixed"] = Field(
        description="shortest: those with the fewest characters; diverse: the shortest, then always the answer that is "
        "least similar to those chosen; mixed: from short to long, evenly spaced by rank"
    )
    count: PositiveInt | None = Field(
        default=None, description="answers kept of a problem; if absent 1 of shortest, 4 of diverse and mixed"
    )

    @model_validator(mode="after")
    def _counted(self) -> "ResponseSelection":
        if self.rule == "all" and self.count is not None:
            raise ValueError("keep: all has no count; choose shortest, diverse or mixed, or leave count out")
        if self.rule in ("diverse", "mixed") and self.count == 1:
            raise ValueError(f"keep: {self.rule} chooses among several; give a count above 1, or keep the shortest")
        return self

    @property
    def most(self) -> int | None:
        """Return the number of answers of a problem that are kept, at most; `None` for all."""
        if self.rule == "all":
            return None
        return self.count or (1 if self.rule == "shortest" else 4)

    def select(self, answers: Sequence[str]) -> list[int]:
        """Return the indices of the answers that are kept, in the order of choice. Equal texts count once.

        Length is in characters, because teachers count tokens differently. Of answers of equal length the first comes
        first, so that the choice depends on the answers alone.
        """
        first: dict[str, int] = {}
        for index, answer in enumerate(answers):
            first.setdefault(answer.strip(), index)
        distinct = list(first.values())
        if self.most is None:
            return distinct
        by_length = sorted(distinct, key=lambda index: (len(answers[index]), index))
        if self.rule == "shortest" or len(by_length) <= self.most:
            return by_length[: self.most]
        if self.rule == "mixed":
            last = len(by_length) - 1
            return [by_length[round(number * last / (self.most - 1))] for number in range(self.most)]
        return _farthest_first(by_length, answers, self.most)


def _as_rule(value: Any) -> Any:
    return {"rule": value} if isinstance(value, str) else value


SelectionField = Annotated[ResponseSelection, BeforeValidator(_as_rule)]


def _farthest_first(by_length: Sequence[int], answers: Sequence[str], count: int) -> list[int]:
    """Choose the shortest, then always the answer farthest from those chosen (farthest-first, Gonzalez 1985)."""
    ngrams = {index: word_ngrams(answers[index]) for index in by_length}
    chosen = [by_length[0]]
    nearest = {index: jaccard_distance(ngrams[index], ngrams[chosen[0]]) for index in by_length[1:]}
    while len(chosen) < count:
        # `max` takes the first of equals, so the order of length decides.
        farthest = max(nearest, key=nearest.__getitem__)
        del nearest[farthest]
        chosen.append(farthest)
        nearest = {
            index: min(distance, jaccard_distance(ngrams[index], ngrams[farthest]))
            for index, distance in nearest.items()
        }
    return chosen


def word_ngrams(text: str) -> frozenset[tuple[str, ...]]:
    """Return all n-grams of one to three words, numbers and signs of a text."""
    words = _WORD.findall(text)
    return frozenset(
        tuple(words[start : start + length])
        for length in range(1, _MAX_NGRAM + 1)
        for start in range(len(words) - length + 1)
    )


def jaccard_distance(one: frozenset[tuple[str, ...]], other: frozenset[tuple[str, ...]]) -> float:
    """Return the Jaccard distance of two sets: 0 for equal sets, 1 for disjoint ones."""
    union = len(one | other)
    return 1 - len(one & other) / union if union else 0.0
