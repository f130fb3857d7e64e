"""Scores of sample rows: means, pass@k, maj@k, rates and lengths, each mean with its interval.

A sample row is one line of an evaluation's TASK.jsonl: one response to one problem with its verdict. The problem is the
unit of every interval, however many samples it has: responses to the same problem are not independent.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import comb
from typing import Any

import numpy as np

from smallwit.evaluation.canonical import canonical_answer
from smallwit.evaluation.statistics import mean_interval

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Estimate:
    """A mean over `n` problems, with its 95 % interval; all in 0..1.

    Samples without a verdict (our grader failed) are left out of the mean; `bounds` are what it would have been if all
    of them had scored 0, and 1. `None` when every sample has a verdict.
    """

    mean: float
    low: float
    high: float
    n: int
    bounds: tuple[float, float] | None


@dataclass(frozen=True)
class MetricVariant:
    """The scores of one variant of the metric, lenient or strict.

    With k samples a problem `mean` is avg@k. `pass_at[k]` is the chance that one of k samples is right (score 1),
    `majority_at[k]` that the answer which most of k samples give is right. Both are there for k = 2, 4, 8, ... and the
    number of samples (a majority needs 3); pass@1 is the mean. They are of the problems that have k verdicts, which are
    `n` where some have fewer.
    """

    mean: Estimate
    pass_at: Mapping[int, Estimate]
    majority_at: Mapping[int, Estimate]


@dataclass(frozen=True)
class Scores:
    """The scores of one model on one task.

    A problem has from `fewest` to `most` samples. Rates are shares of the samples: cut by the token limit, without an
    answer, with several different answers, over a limit of the grader (they score 0). `unverified` counts
    those without a verdict because our grader failed. Lengths are in tokens. `None` where no row knows.
    """

    problems: int
    samples: int
    fewest: int
    most: int
    lenient: MetricVariant
    strict: MetricVariant
    truncated: float | None
    no_answer: float
    several: float | None
    over_limit: float
    unverified: int
    mean_tokens: float | None
    p95_tokens: float | None

    @property
    def failed(self) -> float:
        """Return the share of the samples without a verdict."""
        return self.unverified / self.samples

    def as_json(self) -> dict[str, Any]:
        """Return the entry of a task in scores.json, but for the signature; results.json holds a part of it."""
        score, strict = self.lenient.mean, self.strict.mean
        entry: dict[str, Any] = {
            "mean": score.mean,
            "low": score.low,
            "high": score.high,
            "strict": strict.mean,
            "strict_low": strict.low,
            "strict_high": strict.high,
            "n": score.n,
            "samples": self.samples,
            "truncated": self.truncated,
            "no_answer": self.no_answer,
            "several": self.several,
            "over_limit": self.over_limit,
            "failed": self.failed,
            "tokens": {"mean": self.mean_tokens, "p95": self.p95_tokens},
        }
        if score.bounds or strict.bounds:
            entry |= {"bounds": _list(score.bounds), "strict_bounds": _list(strict.bounds)}
        for name in ("pass_at", "majority_at"):
            lenient, strictly = getattr(self.lenient, name), getattr(self.strict, name)
            if lenient:
                entry[name] = {str(k): _short(lenient[k]) | {"strict": strictly[k].mean} for k in lenient}
        return entry


def scores(rows: Sequence[Row]) -> Scores:
    """Return the scores of one task from its sample rows, in any order.

    Intervals are Wilson's where each problem has one value of 0 or 1, else Student's t over problems
    (`statistics.mean_interval`). There is a majority only where the gold answer is a text or a number: a majority of
    programs says nothing.

    Raises `ValueError` when there are no rows, or no row has a verdict.
    """
    if not rows:
        raise ValueError("no sample rows")
    problems: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: row.get("sample", 0)):
        problems.setdefault(str(row["id"]), []).append(row)
    groups = list(problems.values())
    lengths = [row["tokens"] for row in rows if row["tokens"] is not None]
    return Scores(
        problems=len(groups),
        samples=len(rows),
        fewest=min(map(len, groups)),
        most=max(map(len, groups)),
        lenient=_metric_variant(groups, "score"),
        strict=_metric_variant(groups, "strict"),
        truncated=_rate(rows, "truncated"),
        no_answer=_share([row["reason"] == "no-answer" for row in rows]),
        several=_rate(rows, "several"),
        over_limit=_share([row["reason"] == "limit" for row in rows]),
        unverified=sum(row["score"] is None for row in rows),
        mean_tokens=float(np.mean(lengths)) if lengths else None,
        # The least length that 95 % of the samples do not exceed: one that was measured.
        p95_tokens=float(np.quantile(lengths, 0.95, method="inverted_cdf")) if lengths else None,
    )


def by_stratum(
    rows: Sequence[Row], strata: Mapping[str, Sequence[Sequence[str]]]
) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the scores of the groups of problems, by name and value, as JSON data: mean, interval, strict mean, n.

    `strata` has the groups of each problem by its id (`Problem.strata`). Where no sample of a group has a verdict, its
    numbers are `None` and `n` is 0.
    """
    groups: dict[str, dict[str, list[Row]]] = {}
    for row in rows:
        for name, value in strata.get(str(row["id"]), ()):
            groups.setdefault(name, {}).setdefault(value, []).append(row)
    return {name: {value: _stratum(of) for value, of in sorted(by_value.items())} for name, by_value in groups.items()}


def _stratum(rows: Sequence[Row]) -> dict[str, Any]:
    if all(row["score"] is None for row in rows):
        return {"mean": None, "low": None, "high": None, "strict": None, "n": 0}
    entry = scores(rows).as_json()
    return {key: entry[key] for key in ("mean", "low", "high", "strict", "n")}


def problem_means(rows: Sequence[Row], key: str = "score") -> dict[str, float]:
    """Return the mean score of each problem, by id, in order of appearance. Problems without a verdict are left out."""
    found: dict[str, list[float]] = {}
    for row in rows:
        if row[key] is not None:
            found.setdefault(str(row["id"]), []).append(row[key])
    return {name: sum(values) / len(values) for name, values in found.items()}


def tokens_per_second(rows: Sequence[Row]) -> float | None:
    """Return the tokens of the responses over the seconds in which they were written and graded; `None` if unknown."""
    known = [(row["tokens"], row["seconds"]) for row in rows if row["tokens"] is not None and "seconds" in row]
    seconds = sum(each for _, each in known)
    return float(sum(tokens for tokens, _ in known) / seconds) if seconds else None


def pass_at_k(n: int, correct: int, k: int) -> float:
    """Return pass@k, the unbiased estimate of the chance that one of k samples is right, from n with `correct` right.

    1 - C(n - correct, k) / C(n, k) (Chen et al. 2021, arXiv 2107.03374, equation 1). Raises `ValueError` for k > n.
    """
    if not 0 <= correct <= n or not 0 < k <= n:
        raise ValueError(f"pass@{k} of {n} samples with {correct} right")
    return 1.0 - comb(n - correct, k) / comb(n, k)


def majority_at_k(scores: Sequence[float], keys: Sequence[str | None], k: int) -> float:
    """Return maj@k: how often the answer that most of k samples give is right.

    `keys[i]` is the answer of sample i (`None`: it gave none and has no vote). The samples are taken k at a time in
    their order, a rest of less than k is not used. A tie is split: the mean over the answers that share the first
    place, as if one of them were drawn. A group without any answer scores 0.
    """
    groups = [range(start, start + k) for start in range(0, len(scores) - k + 1, k)]
    return sum(_majority(scores, keys, group) for group in groups) / len(groups)


def _majority(scores: Sequence[float], keys: Sequence[str | None], group: range) -> float:
    votes: dict[str, list[float]] = {}
    for i in group:
        if (answer := keys[i]) is not None:
            votes.setdefault(answer, []).append(scores[i])
    most = max(map(len, votes.values()), default=0)
    first = [sum(given) / most for given in votes.values() if len(given) == most]
    return sum(first) / len(first) if first else 0.0


def _metric_variant(problems: Sequence[Sequence[Row]], key: str) -> MetricVariant:
    def average(rows: Sequence[Row], values: Sequence[float], k: int) -> float:
        return sum(values) / len(values)

    def passed(rows: Sequence[Row], values: Sequence[float], k: int) -> float:
        return pass_at_k(len(values), sum(value == 1.0 for value in values), k)

    answers: dict[str, str] = {}

    def majority(rows: Sequence[Row], values: Sequence[float], k: int) -> float:
        return majority_at_k(values, [answers.get(row["answer"]) for row in rows], k)

    mean = _estimate(problems, key, average, 1)
    if mean is None:
        raise ValueError(f"no sample of {sum(map(len, problems))} has a verdict")
    most = max(map(len, problems))
    sizes = [2**i for i in range(1, most.bit_length()) if 2**i < most] + [most] * (most > 1)
    votes = [k for k in sizes if k > 2 and all(isinstance(rows[0]["gold"], str | int | float) for rows in problems)]
    if votes:
        given = {row["answer"] for rows in problems for row in rows} - {None}
        answers.update((answer, canonical_answer(answer)) for answer in given)
    majorities = {k: _estimate(problems, key, majority, k) for k in votes}
    return MetricVariant(mean, _known({k: _estimate(problems, key, passed, k) for k in sizes}), _known(majorities))


def _known(estimates: Mapping[int, Estimate | None]) -> dict[int, Estimate]:
    return {k: estimate for k, estimate in estimates.items() if estimate is not None}


def _estimate(
    problems: Sequence[Sequence[Row]], key: str, value: Callable[[Sequence[Row], Sequence[float], int], float], k: int
) -> Estimate | None:
    """Return the mean of `value(rows, scores, k)` over the problems with k verdicts; `None` if there are none."""
    known = [[row for row in rows if row[key] is not None] for rows in problems]
    values = [value(rows, [float(row[key]) for row in rows], k) for rows in known if len(rows) >= k]
    if not values:
        return None
    mean, low, high = mean_interval(values)
    if sum(map(len, known)) == sum(map(len, problems)):
        return Estimate(mean, low, high, len(values), None)
    enough = [rows for rows in problems if len(rows) >= k]
    ends = [[value(rows, _filled(rows, key, end), k) for rows in enough] for end in (0.0, 1.0)]
    return Estimate(mean, low, high, len(values), (sum(ends[0]) / len(enough), sum(ends[1]) / len(enough)))


def _filled(rows: Sequence[Row], key: str, end: float) -> list[float]:
    return [end if row[key] is None else float(row[key]) for row in rows]


def _rate(rows: Sequence[Row], key: str) -> float | None:
    """Return the share of the rows that know, or `None`: stored generations may not tell whether a limit cut them."""
    known = [row[key] for row in rows if row.get(key) is not None]
    return _share(known) if known else None


def _share(flags: Sequence[bool]) -> float:
    return sum(flags) / len(flags)


def _list(bounds: tuple[float, float] | None) -> list[float] | None:
    return list(bounds) if bounds else None


def _short(estimate: Estimate) -> dict[str, Any]:
    return {"mean": estimate.mean, "low": estimate.low, "high": estimate.high, "n": estimate.n}
