"""Evaluation problems, indexed so that a text which holds one of them or its solution is recognised."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from smallwit.data.ngrams import Hashes, RunHasher, words_of
from smallwit.data.normalise import text_hash
from smallwit.tasks.base import Problem
from smallwit.verify.extract import boxed

LONG, SHORT = 13, 8
"""Words of a run that betrays a copy by itself (GPT-3's length; Brown et al. 2020, arXiv 2005.14165, app. C), and of
one that does so together with the same answer."""
LEAST = 4
"""A problem of fewer words is recognised only as a whole."""
COMMON_LINE = 10
"""A line that so many evaluation problems have is an instruction, and no part of a problem."""
PHRASE, COMMON_PHRASE = 5, 3
"""A run of five words that three different evaluation problems have is a phrase of the trade (`where m and n are`,
`frac 1 a frac 1`), and its words betray nothing."""
TELLING_LONG, TELLING_WORKED, TELLING_SHORT = 6, 12, 3
"""Different words outside of such phrases that a run shared with a problem must have, with a solution, and a short one.
Solutions of different problems of one kind go the same way."""
_DECIMAL = re.compile(r"-?\d+(?:\.\d+)?")


@dataclass
class Known:
    """One evaluation problem: its texts, its answer, the suites that hold it, and the words of prompt and solution."""

    suites: list[str]
    id: str
    prompt: str
    solution: str
    answer: str | None
    words: list[str]
    worked: list[str]

    def may_be(self, answer: str | None) -> bool:
        """Whether an answer does not speak against this problem."""
        return answer is None or self.answer is None or answer == self.answer


class Match(NamedTuple):
    """By which rule a text was recognised as holding an evaluation problem, and the words that they share."""

    rule: str
    known: Known
    shared: str


class Evaluations:
    """All evaluation problems, each once."""

    def __init__(self, suites: Mapping[str, Sequence[Problem]]) -> None:
        prompts = [each.prompt for problems in suites.values() for each in problems]
        lines = Counter(line for prompt in set(prompts) for line in {_line(text) for text in prompt.split("\n")})
        del lines[""]
        self._instructions = {line for line, count in lines.items() if count >= COMMON_LINE}
        self.problems = self._distinct(suites)
        self._hasher = RunHasher({word for known in self.problems for word in (*known.words, *known.worked)})
        self._whole: dict[str, int] = {}
        short: dict[int, dict[int, list[int]]] = {}
        self._edits: dict[int, list[int]] = {}
        for number, known in enumerate(self.problems):
            self._whole["".join(known.words)] = number
            if len(known.worked) >= LONG:
                self._whole["".join(known.worked)] = number
            if LEAST <= len(known.words) < LONG:
                same = short.setdefault(len(known.words), {})
                same.setdefault(self._hasher.run(known.words), []).append(number)
            if LEAST <= len(known.words) <= 2 * LONG:
                for edit in _one_word_less(known.words):
                    self._edits.setdefault(edit, []).append(number)
        self._inside = short
        self._phrases = self._common_phrases()
        self._long = self._table(LONG, [[known.words, known.worked] for known in self.problems])
        self._short = self._table(SHORT, [[known.words] for known in self.problems])

    def match(self, prompt: str, completion: str | None, answer: Any) -> Match | None:
        """The first rule by which a row holds an evaluation problem or its solution.

        - `exact`: the same letters and digits.
        - `long`: a run of 13 words with words of its own; or of half a problem, and no other answer.
        - `inside`: a whole problem of 8 to 12 words, or one of 4 to 7 with the same answer.
        - `short`: a run of 8 words, and the same answer.
        - `one word`: a problem of up to 26 words but for one word, with the same numbers and no other answer.
        """
        asked = self.words(prompt)
        answered = [] if completion is None else self.words(completion)
        for words in (asked, answered):
            number = self._whole.get("".join(words)) if words else None
            if number is not None:
                return Match("exact", self.problems[number], " ".join(words))
        prefixes = self._hasher.prefixes(asked)
        behind = self._hasher.prefixes(answered)
        key = answer_key(answer, completion)
        return (
            self._long_run(asked, prefixes, key)
            or self._long_run(answered, behind, key)
            or self._whole_inside(asked, prefixes, key)
            or self._short_run(asked, prefixes, key)
            or self._but_one_word(asked, key)
        )

    def words(self, text: str) -> list[str]:
        """The words of a text without its instructions."""
        lines = [line for line in text.split("\n") if _line(line) not in self._instructions]
        return words_of("\n".join(lines))

    # ---- the index

    def _distinct(self, suites: Mapping[str, Sequence[Problem]]) -> list[Known]:
        found: dict[str, Known] = {}
        for suite, problems in suites.items():
            for each in problems:
                words = self.words(each.prompt)
                solution = each.solution or ""
                key = answer_key(each.gold, None)
                made = Known([], each.id, each.prompt, solution, key, words, self.words(solution))
                known = found.setdefault("".join(words), made)
                known.suites += [suite] if suite not in known.suites else []
        return list(found.values())

    def _table(self, length: int, texts: Sequence[Sequence[Sequence[str]]]) -> tuple[Hashes, NDArray[np.int32]]:
        """The runs of so many words, sorted, and the problem of each."""
        runs: list[Hashes] = [np.empty(0, dtype=np.uint64)]
        owners: list[NDArray[np.int32]] = [np.empty(0, dtype=np.int32)]
        for number, mine in enumerate(texts):
            of_one = [self._hasher.runs(self._hasher.prefixes(words), length) for words in mine]
            runs.append(np.unique(np.concatenate(of_one)))
            owners.append(np.full(runs[-1].size, number, dtype=np.int32))
        every, who = np.concatenate(runs), np.concatenate(owners)
        order = np.argsort(every, kind="stable")
        return every[order], who[order]

    def _common_phrases(self) -> Hashes:
        """The runs of `PHRASE` words that `COMMON_PHRASE` problems have, sorted."""
        runs = [np.empty(0, dtype=np.uint64)]
        for known in self.problems:
            of_one = [self._hasher.runs(self._hasher.prefixes(words), PHRASE) for words in (known.words, known.worked)]
            runs.append(np.unique(np.concatenate(of_one)))
        phrases, counts = np.unique(np.concatenate(runs), return_counts=True)
        return phrases[counts >= COMMON_PHRASE]

    def _telling(self, words: Sequence[str]) -> int:
        """How many different words of a run stand outside of phrases of the trade."""
        common = _among(self._hasher.runs(self._hasher.prefixes(words), PHRASE), self._phrases)
        return len(
            {word for place, word in enumerate(words) if not common[max(0, place - PHRASE + 1) : place + 1].any()}
        )

    # ---- the rules

    def _long_run(self, words: Sequence[str], prefixes: Hashes, key: str | None) -> Match | None:
        for known, place in self._owners(self._long, prefixes, LONG):
            asked = _longest(words, place, LONG, known.words)
            half = bool(asked) and 2 * len(asked) >= len(known.words)
            if self._telling(asked) >= TELLING_LONG or (half and known.may_be(key)):
                return Match("long", known, " ".join(asked))
            worked = _longest(words, place, LONG, known.worked)
            if self._telling(worked) >= TELLING_WORKED:
                return Match("long", known, " ".join(worked))
        return None

    def _short_run(self, words: Sequence[str], prefixes: Hashes, key: str | None) -> Match | None:
        if key is None:
            return None
        for known, place in self._owners(self._short, prefixes, SHORT):
            if key == known.answer:
                shared = _longest(words, place, SHORT, known.words)
                if self._telling(shared) >= TELLING_SHORT:
                    return Match("short", known, " ".join(shared))
        return None

    def _owners(
        self, table: tuple[Hashes, NDArray[np.int32]], prefixes: Hashes, length: int
    ) -> Iterator[tuple[Known, int]]:
        """The problems that share runs with a text, and where: of runs that follow each other the first."""
        runs = self._hasher.runs(prefixes, length)
        last: dict[int, int] = {}
        for place in np.flatnonzero(_among(runs, table[0])).tolist():
            start = np.searchsorted(table[0], runs[place], side="left")
            end = np.searchsorted(table[0], runs[place], side="right")
            for owner in table[1][start:end].tolist():
                if last.get(owner) != place - 1:
                    yield self.problems[owner], place
                last[owner] = place

    def _whole_inside(self, words: Sequence[str], prefixes: Hashes, key: str | None) -> Match | None:
        for length, problems in self._inside.items():
            for place, run in enumerate(self._hasher.runs(prefixes, length).tolist()):
                for number in problems.get(run, ()):
                    known = self.problems[number]
                    if length >= SHORT or (key is not None and key == known.answer):
                        return Match("inside", known, " ".join(words[place : place + length]))
        return None

    def _but_one_word(self, words: Sequence[str], key: str | None) -> Match | None:
        if not LEAST <= len(words) <= 2 * LONG + 1:
            return None
        for edit in _one_word_less(words):
            for number in self._edits.get(edit, ()):
                known = self.problems[number]
                if known.may_be(key):
                    return Match("one word", known, " ".join(words))
        return None


def _longest(words: Sequence[str], place: int, length: int, text: Sequence[str]) -> Sequence[str]:
    """The run of `length` words at `place`, grown to both sides as far as `text` goes along; empty if it has none."""
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
    """The number of words from the start that two texts share."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False)))


def _among(runs: Hashes, table: Hashes) -> NDArray[np.bool_]:
    """Which of the runs stand in a sorted table."""
    if not table.size:
        return np.zeros(runs.size, dtype=bool)
    return table[np.minimum(np.searchsorted(table, runs), table.size - 1)] == runs


def answer_key(answer: Any, completion: str | None) -> str | None:
    """What of an answer counts when two are compared: a number's value, or else its letters, digits and signs.

    Without an answer the completion's last box is it; `None` if there is none.
    """
    if answer is None and completion is not None:
        answer = next(reversed(boxed(completion)), None)
    if isinstance(answer, bool) or not isinstance(answer, str | int | float):
        return None
    text = re.sub(r"\\text\{([^{}]*)\}|[\s$,]|\\[,;!]", r"\1", str(answer)).lower()
    return f"{float(text):.12g}" if _DECIMAL.fullmatch(text) else text or None


def _line(text: str) -> str:
    """A line without what does not count, empty for one of few words, which is no instruction."""
    words = words_of(text)
    return " ".join(words) if len(words) >= LEAST else ""


def _one_word_less(words: Sequence[str]) -> Iterator[int]:
    """Hashes of the words and of the words but one, whichever; a number is never left out. Two texts that differ in one
    word, or in that one has a word more, have one of these in common."""
    yield text_hash(*words)
    for place, word in enumerate(words):
        if not word.isdecimal():
            yield text_hash(*words[:place], *words[place + 1 :])
