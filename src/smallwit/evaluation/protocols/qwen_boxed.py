r"""Qwen2.5-Math's evaluation (arXiv 2409.12122, commit a45202b): qwen25-math-cot, the instruction as system message."""

import re
from typing import ClassVar, cast

from smallwit.evaluation.protocols.base import Composer, NamedProtocol, Pairs, grade_extracted, user_message
from smallwit.inference.generator import Decoding
from smallwit.tasks.base import Problem, Task
from smallwit.tasks.boxed import INSTRUCTION, BoxedTask
from smallwit.tasks.prompt import Prompt
from smallwit.verify import Verdict

_NUMBER = re.compile(r"-?\d*\.?\d+")
_PHRASES = ("he answer is", "final answer is")
_CHINESE = "答案是"


class QwenBoxed(NamedProtocol):
    """Qwen's chain of extraction, compared by our math grader."""

    name = "qwen-boxed"
    about = "Qwen2.5-Math's qwen25-math-cot: the instruction as system message, no demonstrations"
    decoding: ClassVar = Decoding(0.0, 2048, stop=("</s>", "<|im_end|>", "<|endoftext|>"))
    system = INSTRUCTION
    extractor = "qwen"
    grader = "math"

    def supports(self, task: type[Task]) -> bool:
        """Return whether the task is a published dataset with mathematical answers."""
        return issubclass(task, BoxedTask)

    def composer(self, task: Task) -> Composer:
        """Return the function that makes a system message and a user message."""

        question = cast(BoxedTask, task).question

        def compose(problem: Problem) -> Prompt:
            system = {"role": "system", "content": INSTRUCTION}
            return Prompt(messages=(system, *user_message(question(problem))))  # type: ignore[arg-type]

        return compose

    def grade(self, task: Task, pairs: Pairs) -> list[Verdict]:
        """Return the verdicts on the answers that Qwen's chain finds."""
        return grade_extracted(pairs, qwen_answer)


def qwen_answer(response: str) -> str | None:
    r"""Return the answer that Qwen's chain for tasks with free answers finds first, or `None`.

    Minerva's phrase with dollar signs, the last `boxed` (a box that is never closed runs to the end of the text), the
    text after the last "he answer is" or "final answer is", after the first of the same in Chinese up to a blank line,
    the last number of the text without its commas. Line breaks are dropped, and a colon before, a full stop or slash
    after. Spelling (`strip_string` there) is left to the grader.
    """
    text = _span(response.replace("ки", ""))
    text = re.sub(r"\n\s*", "", text).removeprefix(":").removesuffix(".").removesuffix("/")
    return text.strip() or None


def _span(text: str) -> str:
    if "final answer is $" in text and "$. I hope" in text:
        return text.split("final answer is $", 1)[1].split("$. I hope", 1)[0].strip()
    if "boxed" in text:
        rest = text.rpartition("boxed")[2]
        return _to_closing_brace(rest[1:]) if rest.startswith("{") else rest.split("$")[0].strip()
    for phrase in _PHRASES:
        if phrase in text:
            return text.rpartition(phrase)[2].strip()
    if _CHINESE in text:
        return text.split(_CHINESE)[1].strip().split("\n\n")[0].strip()
    numbers = _NUMBER.findall(text.replace(",", ""))
    return str(numbers[-1]) if numbers else ""


def _to_closing_brace(text: str) -> str:
    """Return the text up to the brace that closes one opened just before; escaped braces count, as in Qwen's code."""
    depth = 1
    for position, character in enumerate(text):
        depth += (character == "{") - (character == "}")
        if depth == 0:
            return text[:position]
    return text
