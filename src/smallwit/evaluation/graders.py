"""Extractors and graders by name, as protocols name them.

A grader is a function `grade(task, pairs) -> verdicts`, `pairs` being (problem, response) and the verdicts in their
order: `Verdict.score` is the lenient reading, `Verdict.strict` the strict one. It may be called several times, with
parts of the work. What it needs beside `Problem` it takes from `task.row(problem)`, the row as it was published.
"""

import importlib
from collections.abc import Callable, Mapping, Sequence

from smallwit.tasks.base import Problem, Task
from smallwit.verify import Verdict

Pairs = Sequence[tuple[Problem, str]]
Grader = Callable[[Task, Pairs], list[Verdict]]

GRADERS: Mapping[tuple[str, str], str] = {
    ("task", "task"): "smallwit.evaluation.graders:by_task",
    ("lm-eval-gsm8k", "exact-match"): "smallwit.evaluation.replica_graders:lm_eval_gsm8k",
    ("minerva", "house-math"): "smallwit.evaluation.replica_graders:minerva",
    ("qwen", "house-math"): "smallwit.evaluation.replica_graders:qwen",
    ("evalplus", "tests"): "smallwit.evaluation.replica_graders:evalplus",
    ("evalplus-base", "tests"): "smallwit.evaluation.replica_graders:evalplus_base",
}
"""(extractor, grader) and where the function that does both is; it is imported when it is needed."""


def by_task(task: Task, pairs: Pairs) -> list[Verdict]:
    """The task's own reading: what training is rewarded by and data is filtered by."""
    return task.verify_batch(pairs)


def load_grader(extractor: str, grader: str) -> Grader:
    """The function that reads and grades as a protocol says."""
    module, name = GRADERS[extractor, grader].split(":")
    found: Grader = getattr(importlib.import_module(module), name)
    return found
