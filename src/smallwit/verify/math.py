r"""Grading of mathematical answers: exact numbers first, then text, then values of formulas.

    >>> grade_math(r"\frac{1}{2}", r"Half of it, so \boxed{0.5}.").score
    1.0

Where the answer is looked for (`extract`):

- strict: the last closed, non-empty `\boxed{...}`; if there is no such box, the last line `#### n`;
- lenient: the same, then the last "the answer is X" or "Answer: X", then the last number of the text.

How it is compared with the gold answer, until one of these decides: equal strings after spelling both alike; exact
numbers, units and per cent signs dropped (`numbers`); static limits (`math_limits`); the shape of the answer, that is
lists, tuples, intervals, unions, matrices (`math_structure`, `math_compare`); the formulas at its leaves, read by a
list of what is known (`math_formula`), by their values (`math_same`) in a killable process (`math_pool`). What is not
known is equal as text only. Nothing of a response is ever evaluated as code.

An answer over a limit is 0.0 with reason `limit`; where our own process fails twice the scores are `None`, reason
`infrastructure`. Safe to call from threads and from forked processes.
"""

import time
from collections.abc import Generator, Iterable
from dataclasses import dataclass, replace

from smallwit.device import cores
from smallwit.errors import UserError
from smallwit.verify import math_pool
from smallwit.verify.extract import Extraction, boxed, extract
from smallwit.verify.math_compare import equal
from smallwit.verify.math_limits import MAX_CHARACTERS, over_limit
from smallwit.verify.math_pool import CPU_SECONDS
from smallwit.verify.math_structure import AnswerNode, identity, parse
from smallwit.verify.math_text import key, spell
from smallwit.verify.numbers import read_number
from smallwit.verify.ordered_map import CachedTask, LRUCache, ordered_map
from smallwit.verify.verdict import Verdict

_PAIRS_A_WORKER = 32
"""A process takes a second to start: another one pays for itself from some dozens of formulas on."""

_REMEMBERED = 4096


def grade_math(gold: str, response: str) -> Verdict:
    """Return the verdict on `response` (a model's text) for the bare gold answer: `18`, `\\frac{1}{2}`, `(3, 4)`."""
    return grade_math_batch([(gold, response)])[0]


def grade_math_batch(
    pairs: Iterable[tuple[str, str]], *, cpu_seconds: float = CPU_SECONDS, workers: int | None = None
) -> list[Verdict]:
    """Return the verdicts on (gold, response) pairs, in order; equal answers are compared once.

    `cpu_seconds` is what one comparison of formulas may take, `workers` the number of processes that compare, by
    default the machine's cores where there is enough to do. Raises `UserError` if `cpu_seconds` is not positive.
    """
    readings = [_timed(gold, response) for gold, response in pairs]
    open_ones = sum(isinstance(reading, _Open) for reading in readings)
    return list(_graded(readings, cpu_seconds, workers or min(cores(), 1 + open_ones // _PAIRS_A_WORKER)))


def grade_math_stream(
    pairs: Iterable[tuple[str, str]], *, cpu_seconds: float = CPU_SECONDS, workers: int | None = None
) -> Generator[Verdict, None, None]:
    """Return the same for pairs that come one after the other: each verdict as soon as those before it are there."""
    return _graded((_timed(gold, response) for gold, response in pairs), cpu_seconds, workers or cores())


def several_boxes(response: str) -> bool:
    """Return whether the closed boxes of a response (the last 64 different texts) hold different answers."""
    boxes = list(dict.fromkeys(box for box in reversed(boxed(response)) if box and "\\boxed" not in box))[:64]
    return len({box if over_limit(box) else identity(spell(box)) for box in boxes}) > 1


def _graded(readings: Iterable["Verdict | _Open"], cpu_seconds: float, workers: int) -> Generator[Verdict, None, None]:
    if cpu_seconds <= 0:
        raise UserError(f"a comparison of formulas cannot have {cpu_seconds} CPU seconds; give a positive number")
    items = (reading.work(cpu_seconds) if isinstance(reading, _Open) else reading for reading in readings)
    return ordered_map(items, workers, _outcomes, math_pool.close)


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What a comparison came to, and the seconds that it took."""

    reason: str
    seconds: float


_outcomes: LRUCache[_Outcome] = LRUCache(_REMEMBERED, lambda outcome: outcome.reason != "infrastructure")


@dataclass(frozen=True, slots=True)
class _Open:
    """A response whose verdict depends on a comparison of formulas."""

    gold: AnswerNode
    answer: AnswerNode
    extraction: Extraction
    seconds: float = 0.0

    def work(self, cpu_seconds: float) -> CachedTask[_Outcome, Verdict]:
        return CachedTask((self.gold, self.answer, cpu_seconds), lambda: self._compare(cpu_seconds), self._verdict)

    def _compare(self, cpu_seconds: float) -> _Outcome:
        start = time.perf_counter()
        failure = ""
        left = cpu_seconds  # for all formulas of the answer together

        def oracle(gold: str, answer: str) -> bool | None:
            nonlocal failure, left
            if failure:
                return None
            comparison = math_pool.compare(gold, answer, left)
            failure = comparison.reason
            left = max(left - comparison.cpu_seconds, 0.01)
            return comparison.equal

        same = equal(self.gold, self.answer, oracle)
        reason = failure if same is None else "correct" if same else "wrong"
        return _Outcome(reason, time.perf_counter() - start)

    def _verdict(self, outcome: _Outcome) -> Verdict:
        return replace(_verdict(self.extraction, outcome.reason), seconds=self.seconds + outcome.seconds)


def _timed(gold: str, response: str) -> "Verdict | _Open":
    start = time.perf_counter()
    reading = _read(gold, response)
    return replace(reading, seconds=time.perf_counter() - start)


def _read(gold: str, response: str) -> Verdict | _Open:
    """Return the verdict, as far as it can be had without algebra."""
    extraction = extract(response)
    if extraction is None:
        return Verdict(0.0, 0.0, None, "no-answer")
    if len(extraction.answer) > MAX_CHARACTERS:
        return _verdict(extraction, "limit")
    gold_number, number = read_number(gold), read_number(extraction.answer)
    if gold_number and number:
        return _verdict(extraction, "correct" if gold_number.same(number) else "wrong")
    if gold.strip() == extraction.answer and gold.strip() and not gold_number:
        return _verdict(extraction, "correct")
    if over_limit(extraction.answer):
        return _verdict(extraction, "limit")
    gold, answer = spell(gold), spell(extraction.answer)
    if gold and key(gold) == key(answer) and not gold_number:
        return _verdict(extraction, "correct")
    gold_node, answer_node = parse(gold), parse(answer)
    same = equal(gold_node, answer_node, lambda one, other: None)
    if same is None:
        return _Open(gold_node, answer_node, extraction)
    return _verdict(extraction, "correct" if same else "wrong")


def _verdict(extraction: Extraction, reason: str) -> Verdict:
    """Return the verdict on a response with an answer. The strict score is 0 outside the declared format."""
    score = None if reason == "infrastructure" else float(reason == "correct")
    strict = score if extraction.strict else 0.0
    return Verdict(score, strict, extraction.answer[:MAX_CHARACTERS], reason, extraction.strict)
