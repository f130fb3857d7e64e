"""How the replicas of other projects' protocols read and grade: their extraction, and what they call equal."""

from collections.abc import Callable
from dataclasses import replace

from smallwit.evaluation.extractors import (
    lm_eval_exact_match,
    lm_eval_flexible,
    lm_eval_strict,
    minerva_answer,
    qwen_answer,
)
from smallwit.evaluation.graders import Pairs
from smallwit.evaluation.replicas import evalplus_text
from smallwit.tasks.base import Task
from smallwit.tasks.evalplus import evalplus_program
from smallwit.verify import Verdict
from smallwit.verify.code import CodeJob, judge_code
from smallwit.verify.math import grade_math_batch


def lm_eval_gsm8k(task: Task, pairs: Pairs) -> list[Verdict]:
    """lm-evaluation-harness' two filters: `strict` is strict-match, `score` flexible-extract."""
    verdicts = []
    for problem, response in pairs:
        strict, flexible = lm_eval_strict(response), lm_eval_flexible(response)
        lenient = float(lm_eval_exact_match(flexible, problem.gold))
        reason = "no-answer" if flexible is None else "correct" if lenient else "wrong"
        matched = float(lm_eval_exact_match(strict, problem.gold))
        verdicts.append(Verdict(lenient, matched, flexible, reason, strict is not None))
    return verdicts


def minerva(task: Task, pairs: Pairs) -> list[Verdict]:
    """The answer behind Minerva's closing sentence, compared by the house's math grader."""
    return _by_house(pairs, minerva_answer)


def qwen(task: Task, pairs: Pairs) -> list[Verdict]:
    """Qwen's chain of extraction, compared by the house's math grader."""
    return _by_house(pairs, qwen_answer)


def _by_house(pairs: Pairs, extract: Callable[[str], str | None]) -> list[Verdict]:
    """Verdicts on what another project would extract. It knows one reading: strict and lenient are equal."""
    answers = [extract(response) for _, response in pairs]
    boxes = [(problem.gold, f"\\boxed{{{answer}}}") for (problem, _), answer in zip(pairs, answers, strict=True)]
    verdicts = grade_math_batch(boxes)
    nothing = Verdict(0.0, 0.0, None, "no-answer")
    return [
        nothing if answer is None else replace(verdict, score=verdict.strict, answer=answer)
        for answer, verdict in zip(answers, verdicts, strict=True)
    ]


def evalplus(task: Task, pairs: Pairs) -> list[Verdict]:
    """EvalPlus' program of a reply, on the task's tests."""
    return _judge(task, pairs, lambda index: pairs[index][1])


def evalplus_base(task: Task, pairs: Pairs) -> list[Verdict]:
    """The same for a reply that continues the prompt."""
    return _judge(task, pairs, lambda index: evalplus_text(task, pairs[index][0]) + pairs[index][1])


def _judge(task: Task, pairs: Pairs, text: Callable[[int], str]) -> list[Verdict]:
    jobs = []
    for index, (problem, _) in enumerate(pairs):
        program = evalplus_program(text(index).replace("\t", "    "), problem.gold["entry_point"])
        jobs.append(CodeJob(**problem.gold | {"prompt": "", "response": f"```python\n{program}\n```"}))
    verdicts = judge_code(jobs, cpu_seconds=getattr(task, "cpu_seconds", 10.0), isolation=task.isolation)
    return [replace(verdict, score=verdict.strict) for verdict in verdicts]
