"""An index of evaluation problems, which finds texts that hold one of them or its solution."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from smallwit.data.ngrams import Hashes, NgramHasher, words_of
from smallwit.data.normalise import text_hash
from smallwit.tasks.base import Problem
from smallwit.verify.extract import boxed

LONG, SHORT = 13, 8
"""Words of an n-gram that shows a copy by itself (GPT-3's length; Brown et al. 2020, arXiv 2005.14165, app. C), and of
one that shows it together with the same answer."""
LEAST = 4
"""A problem of fewer words is recognised only as a whole."""
COMMON_LINE = 10
"""A line that at least so many evaluation problems have is an instruction, and no part of a problem."""
PHRASE, STOCK_PHRASE = 5, 3
"""A 5-gram of three different evaluation problems is a stock phrase (`where m and n are`, `frac 1 a frac 1`), and its
words are no evidence."""
MIN_WORDS_LONG, MIN_WORDS_WORKED, MIN_WORDS_SHORT = 6, 12, 3
"""Distinct words outside of stock phrases that an n-gram must share: with a problem, with a solution, and a short one.
The bound for solutions is higher, because solutions of similar problems are similar."""
_DECIMAL = re.compile(r"-?\d+(?:\.\d+)?")


@dataclass
class EvaluationProblem:
    """An evaluation problem: its benchmarks, its texts, its answer, and the words of prompt and solution."""

    suites: list[str]
    id: str
    prompt: str
    solution: str
    answer: str | None
    words: list[str]
    worked: list[str]

    def compatible(self, answer: str | None) -> bool:
        """Return whether an answer is compatible with this problem's: equal, or one of them is unknown."""
        return answer is None or self.answer is None or answer == self.answer


class ContaminationMatch(NamedTuple):
    """The rule by which a text was found to hold an evaluation problem, and the words that they share."""

    rule: str
    known: EvaluationProblem
    shared: str


class ContaminationIndex:
    """All evaluation problems, each once, by their words and n-grams."""

    def __init__(self, suites: Mapping[str, Sequence[Problem]]) -> None:
        prompts = [each.prompt for problems in suites.values() for each in problems]
        lines = Counter(line for prompt in set(prompts) for line in {_line(text) for text in prompt.split("\n")})
        del lines[""]
        self._instructions = {line for line, count in lines.items() if count >= COMMON_LINE}
        self.problems = self._distinct(suites)
        self._hasher = NgramHasher({word for known in self.problems for word in (*known.words, *known.worked)})
        self._whole: dict[str, int] = {}
        short: dict[int, dict[int, list[int]]] = {}
        self._edits: dict[int, list[int]] = {}
        for number, known in enumerate(self.problems):
            self._whole["".join(known.words)] = number
            if len(known.worked) >= LONG:
                self._whole["".join(known.worked)] = number
            if LEAST <= len(known.words) < LONG:
                same = short.setdefault(len(known.words), {})
                same.setdefault(self._hasher.ngram(known.words), []).append(number)
            if LEAST <= len(known.words) <= 2 * LONG:
                for edit in _one_word_less(known.words):
                    self._edits.setdefault(edit, []).append(number)
        self._inside = short
        self._phrases = self._common_phrases()
        self._long = self._table(LONG, [[known.words, known.worked] for known in self.problems])
        self._short = self._table(SHORT, [[known.words] for known in self.problems])

    def match(self, prompt: str, completion: str | None, answer: Any) -> ContaminationMatch | None:
        """Return the first rule by which a row holds an evaluation problem or its solution; `None` without a match.

        - `exact`: the same letters and digits.
        - `long`: a 13-gram with words of its own; or one of half a problem, and a compatible answer.
        - `inside`: a whole problem of 8 to 12 words, or one of 4 to 7 with the same answer.
        - `short`: an 8-gram, and the same answer.
        - `one word`: a problem of up to 26 words but for one word, with the same numbers and a compatible answer.
        """
        asked = self.words(prompt)
        answered = [] if completion is None else self.words(completion)
        for words in (asked, answered):
            number = self._whole.get("".join(words)) if words else None
            if number is not None:
                return ContaminationMatch("exact", self.problems[number], " ".join(words))
        prefixes = self._hasher.prefixes(asked)
        behind = self._hasher.prefixes(answered)
        key = answer_key(answer, completion)
        return (
            self._long_ngram(asked, prefixes, key)
            or self._long_ngram(answered, behind, key)
            or self._whole_inside(asked, prefixes, key)
            or self._short_ngram(asked, prefixes, key)
            or self._but_one_word(asked, key)
        )

    def words(self, text: str) -> list[str]:
        """Return the words of a text without its instructions."""
        lines = [line for line in text.split("\n") if _line(line) not in self._instructions]
        return words_of("\n".join(lines))

    # ---- the index

    def _distinct(self, suites: Mapping[str, Sequence[Problem]]) -> list[EvaluationProblem]:
        found: dict[str, EvaluationProblem] = {}
        for suite, problems in suites.items():
            for each in problems:
                words = self.words(each.prompt)
                solution = each.solution or ""
                key = answer_key(each.gold, None)
                made = EvaluationProblem([], each.id, each.prompt, solution, key, words, self.words(solution))
                known = found.setdefault("".join(words), made)
                known.suites += [suite] if suite not in known.suites else []
        return list(found.values())

    def _table(self, length: int, texts: Sequence[Sequence[Sequence[str]]]) -> tuple[Hashes, NDArray[np.int32]]:
        """Return the hashes of all n-grams of `length` words, sorted, and the problem of each."""
        runs: list[Hashes] = [np.empty(0, dtype=np.uint64)]
        owners: list[NDArray[np.int32]] = [np.empty(0, dtype=np.int32)]
        for number, mine in enumerate(texts):
            of_one = [self._hasher.ngrams(self._hasher.prefixes(words), length) for words in mine]
            runs.append(np.unique(np.concatenate(of_one)))
            owners.append(np.full(runs[-1].size, number, dtype=np.int32))
        every, who = np.concatenate(runs), np.concatenate(owners)
        order = np.argsort(every, kind="stable")
        return every[order], who[order]

    def _common_phrases(self) -> Hashes:
        """Return the sorted hashes of the n-grams of `PHRASE` words that `STOCK_PHRASE` problems have."""
        runs = [np.empty(0, dtype=np.uint64)]
        for known in self.problems:
            of_one = [
                self._hasher.ngrams(self._hasher.prefixes(words), PHRASE) for words in (known.words, known.worked)
            ]
            runs.append(np.unique(np.concatenate(of_one)))
        phrases, counts = np.unique(np.concatenate(runs), return_counts=True)
        return phrases[counts >= STOCK_PHRASE]

    def _distinct_words(self, words: Sequence[str]) -> int:
        """Return the number of distinct words of an n-gram outside of stock phrases."""
        common = _among(self._hasher.ngrams(self._hasher.prefixes(words), PHRASE), self._phrases)
        return len(
            {word for place, word in enumerate(words) if not common[max(0, place - PHRASE + 1) : place + 1].any()}
        )

    # ---- the rules

    def _long_ngram(self, words: Sequence[str], prefixes: Hashes, key: str | None) -> ContaminationMatch | None:
        for known, place in self._owners(self._long, prefixes, LONG):
            asked = _longest(words, place, LONG, known.words)
            half = bool(asked) and 2 * len(asked) >= len(known.words)
            if self._distinct_words(asked) >= MIN_WORDS_LONG or (half and known.compatible(key)):
                return ContaminationMatch("long", known, " ".join(asked))
            worked = _longest(words, place, LONG, known.worked)
            if self._distinct_words(worked) >= MIN_WORDS_WORKED:
                return ContaminationMatch("long", known, " ".join(worked))
        return None

    def _short_ngram(self, words: Sequence[str], prefixes: Hashes, key: str | None) -> ContaminationMatch | None:
        if key is None:
            return None
        for known, place in self._owners(self._short, prefixes, SHORT):
            if key == known.answer:
                shared = _longest(words, place, SHORT, known.words)
                if self._distinct_words(shared) >= MIN_WORDS_SHORT:
                    return ContaminationMatch("short", known, " ".join(shared))
        return None

    def _owners(
        self, table: tuple[Hashes, NDArray[np.int32]], prefixes: Hashes, length: int
    ) -> Iterator[tuple[EvaluationProblem, int]]:
        """Yield the problems that share n-grams with a text, and the position: of adjacent n-grams only the first."""
        runs = self._hasher.ngrams(prefixes, length)
        last: dict[int, int] = {}
        for place in np.flatnonzero(_among(runs, table[0])).tolist():
            start = np.searchsorted(table[0], runs[place], side="left")
            end = np.searchsorted(table[0], runs[place], side="right")
            for owner in table[1][start:end].tolist():
                if last.get(owner) != place - 1:
                    yield self.problems[owner], place
                last[owner] = place

    def _whole_inside(self, words: Sequence[str], prefixes: Hashes, key: str | None) -> ContaminationMatch | None:
        for length, problems in self._inside.items():
            for place, run in enumerate(self._hasher.ngrams(prefixes, length).tolist()):
                for number in problems.get(run, ()):
                    known = self.problems[number]
                    if length >= SHORT or (key is not None and key == known.answer):
                        return ContaminationMatch("inside", known, " ".join(words[place : place + length]))
        return None

    def _but_one_word(self, words: Sequence[str], key: str | None) -> ContaminationMatch | None:
        if not LEAST <= len(words) <= 2 * LONG + 1:
            return None
        for edit in _one_word_less(words):
            for number in self._edits.get(edit, ()):
                known = self.problems[number]
                if known.compatible(key):
                    return ContaminationMatch("one word", known, " ".join(words))
        return None


def _longest(words: Sequence[str], place: int, length: int, text: Sequence[str]) -> Sequence[str]:
    """Return the n-gram at `place`, extended to both sides as far as `text` matches; empty without a match."""
    run = words[place : place + length]
    best: Sequence[str] = ()
    for at in range(len(text) - length + 1):
        if text[at] != run[0] or text[at : at + length] != run:
            continue
        before = _common(reversed(words[:place]), reversed(text[:at]))
        behind = _common(words[place + length :], text[at + length :])
        best = max(best, words[place - before : place + length + behind], key=len)
    return best


def _common(first: Iterable[str], second: Iterable[str]) -> int:
    """Return the length of the common prefix of two texts, in words."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False)))


def _among(runs: Hashes, table: Hashes) -> NDArray[np.bool_]:
    """Return which of the hashes are in a sorted table."""
    if not table.size:
        return np.zeros(runs.size, dtype=bool)
    return table[np.minimum(np.searchsorted(table, runs), table.size - 1)] == runs


def answer_key(answer: Any, completion: str | None) -> str | None:
    """Return an answer's canonical form: a number's value, or else its letters, digits and signs.

    Without an answer the completion's last box is used; `None` without one.
    """
    if answer is None and completion is not None:
        answer = next(reversed(boxed(completion)), None)
    if isinstance(answer, bool) or not isinstance(answer, str | int | float):
        return None
    text = re.sub(r"\\text\{([^{}]*)\}|[\s$,]|\\[,;!]", r"\1", str(answer)).lower()
    return f"{float(text):.12g}" if _DECIMAL.fullmatch(text) else text or None


def _line(text: str) -> str:
    """Return a line's words as one text; empty for a line of few words, which is no instruction."""
    words = words_of(text)
    return " ".join(words) if len(words) >= LEAST else ""


def _one_word_less(words: Sequence[str]) -> Iterator[int]:
    """Yield the hashes of the words, and of the words without one of them that is no number.

    Two texts that differ in one word, or of which one has a word more, have a hash in common.
    """
    yield text_hash(*words)
    for place, word in enumerate(words):
        if not word.isdecimal():
            yield text_hash(*words[:place], *words[place + 1 :])
