"""HumanEval+ and MBPP+: the same problems with many more tests (Liu et al. 2023, arXiv 2305.01210).

The tests are EvalPlus' own, in the form of its releases `...-OriginFmt`, which the hub has too: inputs, the expected
results, and a comparison that allows floats a little (`smallwit.tasks.evalplus`).
"""

import re
from typing import ClassVar

from smallwit.errors import UserError
from smallwit.rows import Row
from smallwit.tasks.base import Problem
from smallwit.tasks.benchmarks.humaneval import HumanEval
from smallwit.tasks.benchmarks.mbpp import MBPP, entry_point
from smallwit.tasks.dataset import DatasetSource
from smallwit.tasks.evalplus import evalplus_tests
from smallwit.tasks.fenced import fenced

_LOOP = re.compile(r"^for i, \(inp, exp\) in enumerate\(zip\(inputs, results\)\):\n(?:[ \t]+.*\n?)+", re.MULTILINE)


class HumanEvalPlus(HumanEval):
    """HumanEval's 164 problems with EvalPlus' tests.

    The released test of HumanEval/32 takes a number apart as if it were a list, so that no solution passes; here, as
    for EvalPlus itself, it asks whether the polynomial is 0 at what the function finds.
    """

    name = "humaneval+"
    origin = "evalplus/humanevalplus"
    license = "Apache-2.0"
    cpu_seconds: ClassVar = 20.0
    sources: ClassVar = {
        "test": DatasetSource("humaneval/HumanEvalPlus-OriginFmt.jsonl.gz", "evalplus/humanevalplus", "test")
    }

    def problem(self, row: Row, index: int, split: str) -> Problem:
        """Return the problem of HumanEval with the tests of EvalPlus."""
        return super().problem(row | {"test": evalplus_tests(row["test"])}, index, split)


class MBPPPlus(MBPP):
    """378 of MBPP's problems, whose tests EvalPlus has mended and multiplied; only a test split.

    Asked as MBPP is: the task in words and three asserts.
    """

    name = "mbpp+"
    origin = "evalplus/mbppplus"
    license = "Apache-2.0"
    sources: ClassVar = {"test": DatasetSource("mbpp/MbppPlus-OriginFmt.jsonl.gz", "evalplus/mbppplus", "test")}
    columns: ClassVar = {"code": str, "prompt": str, "test_list": list, "test": str}

    def problem(self, row: Row, index: int, split: str) -> Problem:
        """Return the published test is a script that calls the function by its name; it becomes `check(candidate)`."""
        code = row["code"].replace("\r\n", "\n")
        tests = [test.strip() for test in row["test_list"]]
        name = entry_point(row, code, tests)
        loop = _LOOP.search(row["test"])
        if loop is None or f"{name}(" not in loop[0]:
            raise UserError(
                f"task mbpp+: the test of task_id {row['task_id']} has no loop over its inputs that calls {name}"
            )
        body = "".join(f"    {line}\n" for line in loop[0].splitlines())
        body = re.sub(rf"\b{name}\(", "candidate(", body)
        test = f"{row['test'][: loop.start()]}def check(candidate):\n{body}{row['test'][loop.end() :]}"
        tested = evalplus_tests(test)
        gold = {"prompt": "", "entry_point": name, "tests": tested, "setup": "\n".join(row.get("test_imports") or [])}
        return Problem(f"mbpp-{_number(row)}", self.request(row["prompt"], tests), gold, fenced(code))

    def _rows(self, split: str) -> list[Row]:
        return super(MBPP, self)._rows(split)


def _number(row: Row) -> str:
    return str(row["task_id"]).rpartition("/")[2]
