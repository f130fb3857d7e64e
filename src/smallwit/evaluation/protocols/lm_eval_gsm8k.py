"""lm-evaluation-harness' task gsm8k (harness 0.4.13, task version 3): five demonstrations in plain text, two filters.

A problem is never shown its own solution: where it is among the demonstrations, as on the training split, the next
training row takes its place.
"""

import re
from itertools import islice
from typing import ClassVar, cast

from smallwit.evaluation.protocols.base import Composer, NamedProtocol, Pairs, text_key
from smallwit.inference.generator import Decoding
from smallwit.rows import Row
from smallwit.tasks.base import Problem, Task
from smallwit.tasks.benchmarks.gsm8k import GSM8K
from smallwit.tasks.prompt import Prompt
from smallwit.verify import Verdict

_STRICT = re.compile(r"#### (-?[0-9.,]+)")
_FLEXIBLE = re.compile(r"-?[$0-9.,]{2,}|-?[0-9]+")


class LMEvalGSM8K(NamedProtocol):
    """The strict score is the filter strict-match, the lenient score flexible-extract."""

    name = "lm-eval-gsm8k"
    about = "lm-evaluation-harness' gsm8k: 5 demonstrations in plain text; strict-match and flexible-extract"
    decoding: ClassVar = Decoding(0.0, 256, stop=("Question:", "</s>", "<|im_end|>"))
    shots = 5
    overflow: ClassVar = "cut"
    extractor = "lm-eval-gsm8k"
    grader = "exact-match"

    def supports(self, task: type[Task]) -> bool:
        """Return whether the task is GSM8K."""
        return issubclass(task, GSM8K)

    def composer(self, task: Task) -> Composer:
        """Return the function that puts the first five training rows before a question."""
        source = cast(GSM8K, task)
        rows = [(text_key(row["question"]), row) for row in source.published("train")]

        def compose(problem: Problem) -> Prompt:
            own = source.row(problem)
            asked = text_key(own["question"])
            others = islice((row for key, row in rows if key != asked), self.shots)
            return Prompt(text="".join(f"{_ask(row)} {row['answer']}\n\n" for row in others) + _ask(own))

        return compose

    def grade(self, task: Task, pairs: Pairs) -> list[Verdict]:
        """Return the verdicts of the two filters."""
        verdicts = []
        for problem, response in pairs:
            strict, flexible = strict_match(response), flexible_extract(response)
            lenient = float(exact_match(flexible, problem.gold))
            reason = "no-answer" if flexible is None else "correct" if lenient else "wrong"
            matched = float(exact_match(strict, problem.gold))
            verdicts.append(Verdict(lenient, matched, flexible, reason, strict is not None))
        return verdicts


def _ask(row: Row) -> str:
    return f"Question: {row['question']}\nAnswer:"


def strict_match(response: str) -> str | None:
    """Return the number after the first `#### `, or `None`."""
    match = _STRICT.search(response)
    return match[1] if match else None


def flexible_extract(response: str) -> str | None:
    """Return the last piece of text that looks like a number, or `None`.

    Two or more of the characters `$0-9.,` look like a number, so that "..." and ",," are found as well as "$1,234.".
    """
    matches = _FLEXIBLE.findall(response)
    return matches[-1] if matches else None


def exact_match(answer: str | None, gold: str) -> bool:
    """Return the harness' exact_match as this task sets it up; `gold` may be the whole worked solution.

    Both sides lose their commas, then dollar signs, then all up to the last `#### `, then one full stop at the end, and
    are put in lower case. The texts that are left have to be equal: `18.0` is not `18`.
    """
    return answer is not None and _normalise(answer) == _normalise(gold)


def _normalise(text: str) -> str:
    text = text.replace(",", "").replace("$", "").rpartition("#### ")[2]
    # At the very end, or before a line break that ends the text.
    text = re.sub(r"\.$", "", text).lower()
    # The harness compares arrays of texts, and NumPy's drop null characters at the end.
    return text.rstrip("\0")
