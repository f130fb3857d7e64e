"""MBPP: short Python programs from a sentence and three tests (Austin et al. 2021, arXiv 2108.07732)."""

import re
from collections.abc import Sequence
from typing import ClassVar

from smallwit.errors import UserError
from smallwit.rows import Row
from smallwit.tasks.base import Problem
from smallwit.tasks.dataset import DatasetSource
from smallwit.tasks.fenced import FencedTask, fenced

_DEFINITION = re.compile(r"^def\s+(\w+)", re.MULTILINE)
_FIRST_IDS = {"test": range(11, 511), "validation": range(511, 601), "train": range(601, 975)}


class MBPP(FencedTask):
    """374 training, 90 validation and 500 test problems: the upstream split by task id. Ids 1 to 10 are for prompts."""

    name = "mbpp"
    origin = "google-research-datasets/mbpp"
    license = "CC-BY-4.0"
    cpu_seconds: ClassVar = 20.0  # the published solution of task 123 needs 6 on a fast core
    sources: ClassVar = {
        split: DatasetSource("mbpp/mbpp.jsonl", "google-research-datasets/mbpp", split, ("full",))
        for split in _FIRST_IDS
    }
    columns: ClassVar = {"task_id": int, "text": str, "code": str, "test_list": list}

    def problem(self, row: Row, index: int, split: str) -> Problem:
        """Return the task in words and its asserts, as is customary; `test_setup_code` runs after the solution."""
        code = row["code"].replace("\r\n", "\n")
        tests = [test.strip() for test in row["test_list"]]
        gold = {
            "prompt": "",
            "entry_point": entry_point(row, code, tests),
            "tests": tests,
            "setup": row.get("test_setup_code") or "",
        }
        return Problem(f"mbpp-{row['task_id']}", self.request(row["text"], tests), gold, fenced(code))

    def request(self, text: str, tests: Sequence[str]) -> str:
        """Return the user's message."""
        return (
            f"Write a Python function. Answer with the whole program in one ```python block.\n\n{text.strip()}\n"
            "Your code should pass these tests:\n\n" + fenced("\n".join(tests))
        )

    def _rows(self, split: str) -> list[Row]:
        return [row for row in super()._rows(split) if row["task_id"] in _FIRST_IDS[split]]


def entry_point(row: Row, code: str, tests: Sequence[str]) -> str:
    """Return the function that the tests call: the last one defined whose name stands in the first test."""
    called = [name for name in _DEFINITION.findall(code) if re.search(rf"\b{name}\s*\(", tests[0])]
    if not called:
        raise UserError(
            f"task mbpp: no function of the solution of task_id {row['task_id']} is called in its first test"
        )
    return str(called[-1])
