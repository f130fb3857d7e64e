"""A teacher that is a program: it solves the word problems of the tests by rule, forwards and backwards, and errs only
where it is told to."""

import re
from collections.abc import Callable, Sequence

from smallwit.inference.generator import Decoding, Reply
from smallwit.tasks.prompt import Prompt
from smallwit.tasks.wordmath import GAINS, LOSSES

_GAIN, _LOSS = "|".join(GAINS), "|".join(LOSSES)
_N = r"(\d+)"
_TIMES = {"twice": 2.0, "half": 0.5, "3 times": 3.0}
# What a sentence does to the number of the hero.
_RULES: list[tuple[str, Callable[[float, list[float]], float]]] = [
    (rf"has {_N} (?:bags|boxes) (?:of|with) {_N}", lambda v, n: n[0] * n[1]),
    (rf"has {_N} \w+ \w+ and {_N} ", lambda v, n: n[0] + n[1]),
    (rf"^Of {_N} \w+, \w+ \w+ {_N}\.", lambda v, n: n[0] - n[1]),
    (rf"(?:{_GAIN}) {_N} (?:bags|boxes) of {_N}", lambda v, n: v + n[0] * n[1]),
    (rf"(?:{_LOSS}) {_N} (?:bags|boxes) of {_N}", lambda v, n: v - n[0] * n[1]),
    (rf"gives {_N} to each of {_N} friends", lambda v, n: v - n[0] * n[1]),
    (rf"(?:{_GAIN}|friend gives \w+) {_N} ", lambda v, n: v + n[0]),
    (rf"(?:{_LOSS}|gives) {_N} ", lambda v, n: v - n[0]),
    (rf"(?:{_LOSS}) half of them", lambda v, n: v / 2),
    (r"has twice as many\.", lambda v, n: v * 2),
    (r"has 3 times as many\.", lambda v, n: v * 3),
    (rf"puts {_N} in each", lambda v, n: v / n[0]),
    (rf"(?:puts|shares) them equally (?:in|among) {_N} ", lambda v, n: v / n[0]),
    (rf"costs {_N} dollars", lambda v, n: v * n[0]),
    (rf"needs {_N} ", lambda v, n: n[0] - v),
]


def solve(story: str) -> float:
    """The answer to a word problem of the family, its numbers written as digits."""
    sentences = re.split(r"(?<=[.?!])\s+", story)
    before = re.search(rf"Before that \w+ had {_N}", story)
    value, start = 0.0, 0
    compared = re.search(rf"has (?:{_N} (more|fewer)|(twice|half|3 times) as many) \w+ (?:than|as) (\w+)\.", story)
    if compared:
        other = float(re.search(rf"{compared[4]} has {_N} \w+\.", story)[1])  # type: ignore[index]
        factor = _TIMES.get(compared[3] or "")
        value = other * factor if factor else other + float(compared[1]) * (1 if compared[2] == "more" else -1)
        start = 2
    elif before:
        value = float(before[1])
        sentences.pop(1)
    elif plain := re.search(rf"^(?:At first \w+ has|\w+ has|\w+ starts with) {_N} \w+\.$", sentences[0]):
        value, start = float(plain[1]), 1
    for sentence, following in zip(sentences[start:], [*sentences[start + 1 :], ""], strict=True):
        theirs = re.search(rf"^(?:A friend|\w+) has {_N} \w+\.$", sentence)
        if theirs and "together" in following:
            return value + float(theirs[1])
        if theirs and "How many more" in following:
            return value - float(theirs[1])
        for pattern, rule in _RULES:
            if match := re.search(pattern, sentence):
                value = rule(value, [float(number) for number in match.groups()])
                break
    return value


def solve_any(question: str) -> str:
    """The answer to a problem, or to one asked backwards: then the number X for which the story has that answer."""
    told = re.search(r" If the answer to this question is (\S+), what is the value of X\?$", question)
    stated = re.search(r' The answer to "(.*)" is (\S+)\. What is the value of X\?$', question)
    if told is None and stated is None:
        return f"{solve(question):g}"
    story = question[: (told or stated).start()] + (f" {stated[1]}" if stated else "")  # type: ignore[union-attr]
    wanted = float(told[1] if told else stated[2])  # type: ignore[index]
    fitting = [x for x in range(1, 100) if abs(solve(re.sub(r"\bX\b", str(x), story)) - wanted) < 1e-9]
    return str(fitting[0]) if fitting else "0"


class ScriptedTeacher:
    """A `Generator` that answers by `rule(prompt text, seed)`, and remembers what it was asked."""

    def __init__(self, rule: Callable[[str, int], str]) -> None:
        self.rule = rule
        self.asked: list[str] = []

    def reply(
        self,
        prompts: Sequence[Prompt],
        decoding: Decoding,
        seeds: Sequence[int],
        on_reply: Callable[[int, Reply], None] = lambda index, reply: None,
        on_tokens: Callable[[int], None] = lambda count: None,
    ) -> list[Reply]:
        replies = []
        for index, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True)):
            question = prompt.messages[-1]["content"]
            self.asked.append(question)
            words = self.rule(question, seed).split(" ")
            cut = len(words) > decoding.max_new_tokens
            text = " ".join(words[: decoding.max_new_tokens])
            replies.append(Reply(text, min(len(words), decoding.max_new_tokens), len(question.split()), cut))
            on_reply(index, replies[-1])
            on_tokens(replies[-1].tokens)
        return replies


def solver(question: str, seed: int) -> str:
    """The right answer, with more or fewer words around it."""
    return f"{'so ' * (seed % 3)}the answer is\n#### {solve_any(question)}"
