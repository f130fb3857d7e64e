"""Backward questions, made without a model: one number of the question is masked, and the answer is given.

Self-verification (Weng et al. 2022, arXiv 2212.09561) and FOBAR (Jiang et al. 2023, arXiv 2308.07758), both used for
training by MetaMath (Yu et al. 2023, arXiv 2309.12284). The masked number is the gold answer. Other numbers may fit
too, so samples are checked for agreement with it.
"""

import re
from typing import NamedTuple

UNKNOWN = "X"
_NUMBER = re.compile(r"(?<![\w.,/^\\{-])\d+(?:,\d{3})*(?:\.\d+)?(?![\w/^}]|[.,]\d)")
_SENTENCE_END = re.compile(r"(?<=[.?!])\s+")


class MaskedQuestion(NamedTuple):
    """A question with one number masked, and that number."""

    question: str
    hidden: str


def numbers(question: str) -> list[re.Match[str]]:
    """Return the plain numbers that can be masked: not parts of words, fractions, powers or commands."""
    if re.search(rf"\b{UNKNOWN}\b", question):
        return []
    return list(_NUMBER.finditer(question))


def backward(question: str, answer: str, which: int) -> MaskedQuestion | None:
    """Return FOBAR's form: the question with its number `which` (modulo their count) masked, then the answer.

    `None` for a question without a number.
    """
    masked = _masked(question, which)
    if masked is None:
        return None
    told = f"If the answer to this question is {answer}, what is the value of {UNKNOWN}?"
    return MaskedQuestion(f"{masked.question} {told}", masked.hidden)


def self_verification(question: str, answer: str, which: int) -> MaskedQuestion | None:
    """Return the facts with one number masked, and the answer as one more fact.

    `None` for a question that is not facts followed by one interrogative sentence, or whose facts have no number.
    """
    sentences = _SENTENCE_END.split(question.strip())
    asks = [index for index, sentence in enumerate(sentences) if sentence.endswith("?")]
    if len(sentences) < 2 or asks != [len(sentences) - 1]:
        return None
    masked = _masked(" ".join(sentences[:-1]), which)
    if masked is None or re.search(rf"\b{UNKNOWN}\b", sentences[-1]):
        return None
    told = f'The answer to "{sentences[-1]}" is {answer}.'
    return MaskedQuestion(f"{masked.question} {told} What is the value of {UNKNOWN}?", masked.hidden)


def split_instruction(prompt: str, instruction: str) -> tuple[str, str]:
    """Return the question of a prompt and the rest: the instruction on the answer's format, empty if it has none."""
    question = prompt.rstrip()
    if instruction and question.endswith(instruction.strip()):
        question = question[: -len(instruction.strip())].rstrip()
    return question, prompt[len(question) :]


def _masked(text: str, which: int) -> MaskedQuestion | None:
    found = numbers(text)
    if not found:
        return None
    number = found[which % len(found)]
    return MaskedQuestion(f"{text[: number.start()]}{UNKNOWN}{text[number.end() :]}", number[0].replace(",", ""))
