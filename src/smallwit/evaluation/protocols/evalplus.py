"""EvalPlus 0.3.1 (Liu et al. 2023, arXiv 2305.01210): its prompts for chat models and for base models.

Its sanitiser, which finds the program in a response, is `smallwit.tasks.evalplus`.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar, cast

from smallwit.evaluation.protocols.base import Composer, NamedProtocol, Pairs, user_message
from smallwit.inference.generator import Decoding
from smallwit.tasks.base import Problem, Task
from smallwit.tasks.benchmarks.humaneval import HumanEval
from smallwit.tasks.evalplus import evalplus_program
from smallwit.tasks.fenced import FencedTask
from smallwit.tasks.prompt import Prompt
from smallwit.verify import Verdict
from smallwit.verify.code import CodeJob, judge_code

_ENDS = ("<|endoftext|>", "<|endofmask|>", "</s>", "\nif __name__", "\ndef main(", "\nprint(")
_REQUEST = "Please provide a self-contained Python script that solves the following problem in a markdown code block:"
_BEGUN = (
    "Below is a Python script with a self-contained function that solves the problem and passes corresponding tests:\n"
    "```python\n"
)


class EvalPlusChat(NamedProtocol):
    """A request and the beginning of the answer."""

    name = "evalplus"
    about = "EvalPlus for chat models: a request, and the beginning of the answer"
    decoding: ClassVar = Decoding(0.0, 768, stop=(*_ENDS, "\n```\n"))
    extractor = "evalplus"
    grader = "tests"

    def supports(self, task: type[Task]) -> bool:
        """Return whether the task is a published dataset with programs as answers."""
        return issubclass(task, FencedTask)

    def composer(self, task: Task) -> Composer:
        """Return the function that makes the request and begins the answer."""

        def compose(problem: Problem) -> Prompt:
            request = f"{_REQUEST}\n```\n{_text(task, problem).strip()}\n```\n"
            return Prompt(messages=user_message(request), prefix=_BEGUN)

        return compose

    def grade(self, task: Task, pairs: Pairs) -> list[Verdict]:
        """Return the task's verdicts on the programs that EvalPlus finds in the responses."""
        return _judge(task, [problem for problem, _ in pairs], [response for _, response in pairs])


class EvalPlusBase(NamedProtocol):
    """A prompt that the model continues."""

    name = "evalplus-base"
    about = "EvalPlus for base models: the prompt is continued"
    decoding: ClassVar = Decoding(0.0, 768, stop=(*_ENDS, "\ndef ", "\nclass ", "\nimport ", "\nfrom ", "\nassert "))
    extractor = "evalplus-base"
    grader = "tests"

    def supports(self, task: type[Task]) -> bool:
        """Return whether the task is HumanEval or HumanEval+."""
        return issubclass(task, HumanEval)

    def composer(self, task: Task) -> Composer:
        """Return the function that gives the text to complete."""
        return lambda problem: Prompt(text=_text(task, problem))

    def grade(self, task: Task, pairs: Pairs) -> list[Verdict]:
        """Return the task's verdicts on the prompts with their continuations."""
        texts = [_text(task, problem) + response for problem, response in pairs]
        return _judge(task, [problem for problem, _ in pairs], texts)


def _text(task: Task, problem: Problem) -> str:
    """Return what is to be completed: HumanEval's prompt, or MBPP's sentence and first test as a docstring."""
    row = cast(FencedTask, task).row(problem)
    if "test_list" in row:
        sentence = row.get("prompt") or row["text"]
        return f'"""\n{sentence.strip()}\n{row["test_list"][0].strip()}\n"""\n'
    return str(row["prompt"]).strip() + "\n"


def _judge(task: Task, problems: Sequence[Problem], texts: Sequence[str]) -> list[Verdict]:
    jobs = []
    for problem, text in zip(problems, texts, strict=True):
        program = evalplus_program(text.replace("\t", "    "), problem.gold["entry_point"])
        jobs.append(CodeJob(**problem.gold | {"prompt": "", "response": f"```python\n{program}\n```"}))
    verdicts = judge_code(jobs, cpu_seconds=cast(FencedTask, task).cpu_seconds, isolation=task.isolation)
    return [replace(verdict, score=verdict.strict) for verdict in verdicts]
