r"""Grading of mathematical answers: exact numbers first, then text, then algebra in a process that can be killed.

    >>> grade_math(r"\frac{1}{2}", r"Half of it, so \boxed{0.5}.").score
    1.0

Where the answer is looked for (`extract`):

- strict: the last closed, non-empty `\boxed{...}`; if there is no such box, the last line `#### n`;
- lenient: the same, then the last "the answer is X" or "Answer: X", then the last number of the text.

How it is compared with the gold answer, until one of these decides: equal strings after spelling both alike; exact
numbers, units and per cent signs dropped (`numbers`); static limits (`math_limits`); the shape of the answer, that is
lists, tuples, intervals, unions, matrices (`math_structure`, `math_compare`); the formulas at its leaves by Math-Verify
in a killable process (`math_pool`). Nothing of a response is ever evaluated as code.

An answer over a limit is 0.0 with reason `limit`; where our own process fails twice the scores are `None`, reason
`infrastructure`. Safe to call from threads and from forked processes.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from smallwit.verify.extract import Extraction, extract
from smallwit.verify.math_compare import equal
from smallwit.verify.math_limits import MAX_CHARACTERS, over_limit
from smallwit.verify.math_pool import Comparison, compare_all
from smallwit.verify.math_structure import Node, parse
from smallwit.verify.math_text import key, spell
from smallwit.verify.numbers import read_number
from smallwit.verify.verdict import Verdict

_Pair = tuple[str, str]


def grade_math(gold: str, response: str) -> Verdict:
    """The verdict on `response` (a model's whole text) for the bare gold answer: `18`, `\\frac{1}{2}`, `(3, 4)`."""
    return grade_math_batch([(gold, response)])[0]


def grade_math_batch(pairs: Iterable[tuple[str, str]]) -> list[Verdict]:
    """The verdicts on (gold, response) pairs, in order. Formulas are compared all in one go, equal pairs once."""
    readings = [_read(gold, response) for gold, response in pairs]
    waiting = [reading for reading in readings if isinstance(reading, _Open)]
    formulas = list(dict.fromkeys(pair for reading in waiting for pair in reading.formulas))
    known = dict(zip(formulas, compare_all(formulas), strict=True))
    return [reading.settle(known) if isinstance(reading, _Open) else reading for reading in readings]


@dataclass(frozen=True, slots=True)
class _Open:
    """A response whose verdict waits for the formulas in `formulas`."""

    gold: Node
    answer: Node
    extraction: Extraction
    formulas: tuple[_Pair, ...]

    def settle(self, known: dict[_Pair, Comparison]) -> Verdict:
        same = equal(self.gold, self.answer, lambda gold, answer: known[gold, answer].equal)
        if same is None:
            failed = {known[pair].reason for pair in self.formulas if known[pair].equal is None}
            return _verdict(self.extraction, "infrastructure" if "infrastructure" in failed else "limit")
        return _verdict(self.extraction, "correct" if same else "wrong")


def _read(gold: str, response: str) -> Verdict | _Open:
    """The verdict, as far as it can be had without algebra."""
    extraction = extract(response)
    if extraction is None:
        return Verdict(0.0, 0.0, None, "no-answer")
    if len(extraction.answer) > MAX_CHARACTERS:
        return _verdict(extraction, "limit")
    gold_number, number = read_number(gold), read_number(extraction.answer)
    if gold_number and number:
        return _verdict(extraction, "correct" if gold_number.same(number) else "wrong")
    gold, answer = spell(gold), spell(extraction.answer)
    if gold and key(gold) == key(answer) and not gold_number:
        return _verdict(extraction, "correct")
    if over_limit(answer):
        return _verdict(extraction, "limit")
    asked: dict[_Pair, None] = {}
    gold_node, answer_node = parse(gold), parse(answer)
    same = equal(gold_node, answer_node, lambda one, other: asked.setdefault((one, other)))
    if same is None:
        return _Open(gold_node, answer_node, extraction, tuple(asked))
    return _verdict(extraction, "correct" if same else "wrong")


def _verdict(extraction: Extraction, reason: str) -> Verdict:
    """A verdict for a response with an answer; the strict score is 0 if it did not stand in the declared format."""
    score = None if reason == "infrastructure" else float(reason == "correct")
    strict = score if extraction.strict else 0.0
    return Verdict(score, strict, extraction.answer[:MAX_CHARACTERS], reason, extraction.strict)
