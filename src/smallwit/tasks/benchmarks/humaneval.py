"""HumanEval: Python functions to complete (Chen et al. 2021, arXiv 2107.03374)."""

from typing import ClassVar

from smallwit.rows import Row
from smallwit.tasks.base import Problem
from smallwit.tasks.dataset import DatasetSource
from smallwit.tasks.fenced import FencedTask, fenced

_REQUEST = (
    "Complete the Python function below. Answer with the whole function, its imports included, in one ```python block."
)


class HumanEval(FencedTask):
    """164 test problems; there is no training split."""

    name = "humaneval"
    origin = "openai/openai_humaneval"
    license = "MIT"
    sources: ClassVar = {"test": DatasetSource("humaneval/HumanEval.jsonl", "openai/openai_humaneval", "test")}
    columns: ClassVar = {"task_id": str, "prompt": str, "entry_point": str, "canonical_solution": str, "test": str}

    def problem(self, row: Row, index: int, split: str) -> Problem:
        """Return the signature and docstring in a fenced block; the published tests, unchanged, are the gold."""
        prompt = row["prompt"]
        gold = {"prompt": prompt, "entry_point": row["entry_point"], "tests": row["test"]}
        solution = fenced(prompt + row["canonical_solution"])
        return Problem(row["task_id"], f"{_REQUEST}\n\n{fenced(prompt)}", gold, solution)
