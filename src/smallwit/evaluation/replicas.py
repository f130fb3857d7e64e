r"""Replicas of the protocols that others report, so that a score can stand beside theirs.

Prompts, stop strings and token limits are those of lm-evaluation-harness 0.4.13 (`gsm8k` version 3, `minerva_math`
version 3.1), of Qwen2.5-Math's evaluation (commit a45202b) and of EvalPlus 0.3.1. `docs/evaluation.md` lists what
differs. No problem is shown its own solution: where it is among the demonstrations, as on the training split, it is
replaced by the next one (GSM8K) or left out (Minerva's four).
"""

import hashlib
from itertools import islice

from smallwit.errors import UserError
from smallwit.evaluation.named import Composer, NamedProtocol, user_message
from smallwit.inference.generator import Decoding, Prompt
from smallwit.rows import Row
from smallwit.tasks.base import Problem, Task
from smallwit.tasks.boxed import INSTRUCTION, question_of
from smallwit.tasks.dataset import DatasetTask
from smallwit.verify.extract import boxed

GSM8K_SHOTS = 5
MINERVA_SHOTS = ("ec12d949822d", "9dbd8fb88aad", "cb0a71d6bb41", "20c3e8cce64a")
"""The four demonstrations of Lewkowycz et al. 2022 (arXiv 2206.14858, appendix D.2) are training problems of MATH:
the beginnings of sha256 of their texts without white space."""
MATH_TASKS = ("gsm8k", "math", "math500", "aime24", "aime25", "amc23", "minerva", "olympiadbench", "svamp")
CODE_TASKS = ("humaneval", "humaneval+", "mbpp", "mbpp+")
_EVALPLUS_ENDS = ("<|endoftext|>", "<|endofmask|>", "</s>", "\nif __name__", "\ndef main(", "\nprint(")


def _published(task: Task) -> DatasetTask:
    if not isinstance(task, DatasetTask):
        raise UserError(f"task {task.name}: is no published dataset, which this protocol asks of; use --protocol house")
    return task


def _gsm8k(task: Task) -> Composer:
    source = _published(task)

    def ask(row: Row) -> str:
        return f"Question: {row['question']}\nAnswer:"

    rows = [(_text_key(row["question"]), row) for row in source.published("train")]

    def compose(problem: Problem) -> Prompt:
        own = source.row(problem)
        asked = _text_key(own["question"])
        others = islice((row for key, row in rows if key != asked), GSM8K_SHOTS)
        return Prompt(text="".join(f"{ask(row)} {row['answer']}\n\n" for row in others) + ask(own))

    return compose


def _minerva(task: Task) -> Composer:
    source = _published(task)

    def ask(row: Row) -> str:
        return f"Problem:\n{row['problem']}\n\nSolution:"

    by_text = {_text_key(row["problem"]): row for row in source.published("train")}
    missing = [key for key in MINERVA_SHOTS if key not in by_text]
    if missing:
        raise UserError(f"task {task.name}: its training rows lack the problems of Minerva's demonstrations; get all")
    shots = {key: f"{ask(by_text[key])} {_minerva_solution(by_text[key])}\n\n" for key in MINERVA_SHOTS}

    def compose(problem: Problem) -> Prompt:
        own = source.row(problem)
        key = _text_key(own["problem"])
        return Prompt(text="".join(shot for other, shot in shots.items() if other != key) + ask(own))

    return compose


def _minerva_solution(row: Row) -> str:
    solution = row["solution"].strip()
    return f"{solution}\nFinal Answer: The final answer is ${boxed(solution)[-1]}$. I hope it is correct."


def _text_key(text: str) -> str:
    return hashlib.sha256("".join(text.split()).encode()).hexdigest()[:12]


def _qwen(task: Task) -> Composer:
    def compose(problem: Problem) -> Prompt:
        system = {"role": "system", "content": INSTRUCTION}
        return Prompt(messages=(system, *user_message(question_of(problem))))  # type: ignore[arg-type]

    return compose


def evalplus_text(task: Task, problem: Problem) -> str:
    """What EvalPlus asks to be completed: HumanEval's prompt, or MBPP's sentence and first test as a docstring."""
    row = _published(task).row(problem)
    if "test_list" in row:
        sentence = row.get("prompt") or row["text"]
        return f'"""\n{sentence.strip()}\n{row["test_list"][0].strip()}\n"""\n'
    return str(row["prompt"]).strip() + "\n"


def _evalplus_chat(task: Task) -> Composer:
    def compose(problem: Problem) -> Prompt:
        request = (
            "Please provide a self-contained Python script that solves the following problem in a markdown code block:"
            f"\n```\n{evalplus_text(task, problem).strip()}\n```\n"
        )
        begun = (
            "Below is a Python script with a self-contained function that solves the problem and passes corresponding "
            "tests:\n```python\n"
        )
        return Prompt(messages=user_message(request), prefix=begun)

    return compose


def _evalplus_base(task: Task) -> Composer:
    return lambda problem: Prompt(text=evalplus_text(task, problem))


REPLICAS = (
    NamedProtocol(
        "lm-eval-gsm8k",
        "lm-evaluation-harness' gsm8k: 5 demonstrations in plain text; strict-match and flexible-extract",
        _gsm8k,
        Decoding(0.0, 256, stop=("Question:", "</s>", "<|im_end|>")),
        tasks=("gsm8k",),
        shots=GSM8K_SHOTS,
        overflow="cut",
        extractor="lm-eval-gsm8k",
        grader="exact-match",
    ),
    NamedProtocol(
        "minerva-math",
        "lm-evaluation-harness' minerva_math: Minerva's 4 demonstrations in plain text",
        _minerva,
        Decoding(0.0, 256, stop=("Problem:",)),
        tasks=("math", "math500"),
        shots=len(MINERVA_SHOTS),
        overflow="cut",
        extractor="minerva",
        grader="house-math",
    ),
    NamedProtocol(
        "qwen-boxed",
        "Qwen2.5-Math's qwen25-math-cot: the instruction as system message, no demonstrations",
        _qwen,
        Decoding(0.0, 2048, stop=("</s>", "<|im_end|>", "<|endoftext|>")),
        tasks=MATH_TASKS,
        system=INSTRUCTION,
        extractor="qwen",
        grader="house-math",
    ),
    NamedProtocol(
        "evalplus",
        "EvalPlus for chat models: a request, and the beginning of the answer",
        _evalplus_chat,
        Decoding(0.0, 768, stop=(*_EVALPLUS_ENDS, "\n```\n")),
        tasks=CODE_TASKS,
        extractor="evalplus",
        grader="tests",
    ),
    NamedProtocol(
        "evalplus-base",
        "EvalPlus for base models: the prompt is continued",
        _evalplus_base,
        Decoding(0.0, 768, stop=(*_EVALPLUS_ENDS, "\ndef ", "\nclass ", "\nimport ", "\nfrom ", "\nassert ")),
        tasks=("humaneval", "humaneval+"),
        extractor="evalplus-base",
        grader="tests",
    ),
)
