"""Questions asked backwards, made without a model: a number of the question is hidden, the answer is told.

Self-verification (Weng et al. 2022, arXiv 2212.09561) and FOBAR (Jiang et al. 2023, arXiv 2308.07758), both used for
training by MetaMath (Yu et al. 2023, arXiv 2309.12284). The number that was hidden is the gold answer. It need not be
the only one that fits, which is why answers are checked for agreement.
"""

import re
from typing import NamedTuple

UNKNOWN = "X"
_NUMBER = re.compile(r"(?<![\w.,/^\\{-])\d+(?:,\d{3})*(?:\.\d+)?(?![\w/^}]|[.,]\d)")
_SENTENCE_END = re.compile(r"(?<=[.?!])\s+")


class Masked(NamedTuple):
    """A question with a number hidden, and that number."""

    question: str
    hidden: str


def numbers(question: str) -> list[re.Match[str]]:
    """The plain numbers of a question that can be hidden: not parts of words, fractions, powers or commands."""
    if re.search(rf"\b{UNKNOWN}\b", question):
        return []
    return list(_NUMBER.finditer(question))


def backward(question: str, answer: str, which: int) -> Masked | None:
    """FOBAR's form: the question with its number `which` (counted around) hidden; the answer is told behind it."""
    masked = _masked(question, which)
    if masked is None:
        return None
    told = f"If the answer to this question is {answer}, what is the value of {UNKNOWN}?"
    return Masked(f"{masked.question} {told}", masked.hidden)


def self_verification(question: str, answer: str, which: int) -> Masked | None:
    """The facts as statements, a number of theirs hidden, and the answer among them as one more statement.

    `None` for a question that is not facts followed by one sentence that asks, or whose facts hold no number.
    """
    sentences = _SENTENCE_END.split(question.strip())
    asks = [index for index, sentence in enumerate(sentences) if sentence.endswith("?")]
    if len(sentences) < 2 or asks != [len(sentences) - 1]:
        return None
    masked = _masked(" ".join(sentences[:-1]), which)
    if masked is None or re.search(rf"\b{UNKNOWN}\b", sentences[-1]):
        return None
    told = f'The answer to "{sentences[-1]}" is {answer}.'
    return Masked(f"{masked.question} {told} What is the value of {UNKNOWN}?", masked.hidden)


def split_instruction(prompt: str, instruction: str) -> tuple[str, str]:
    """A prompt as its question and the end that holds the instruction on the answer's form (empty if it has none)."""
    question = prompt.rstrip()
    if instruction and question.endswith(instruction.strip()):
        question = question[: -len(instruction.strip())].rstrip()
    return question, prompt[len(question) :]


def _masked(text: str, which: int) -> Masked | None:
    found = numbers(text)
    if not found:
        return None
    number = found[which % len(found)]
    return Masked(f"{text[: number.start()]}{UNKNOWN}{text[number.end() :]}", number[0].replace(",", ""))
