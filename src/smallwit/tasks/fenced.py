"""What tasks with a program as the answer share: the judge and the form of a gold response."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from smallwit.tasks.base import Problem
from smallwit.tasks.dataset import DatasetTask
from smallwit.verify import Verdict
from smallwit.verify.code import CPU_SECONDS, CodeJob, judge_code
from smallwit.verify.consent import LEAST_ISOLATION, known_level

_GOLD = {"prompt", "entry_point", "tests", "setup"}


class FencedTask(DatasetTask):
    """A dataset whose responses are programs in a fenced block, judged by `smallwit.verify.code`.

    `Problem.gold` holds what `CodeJob` needs: `prompt`, `entry_point`, `tests` and `setup`. The tests are the gold.
    A program may use `cpu_seconds` of CPU time. The option `isolation` is the least that must surround it.
    """

    answer_kind: ClassVar = "code"
    cpu_seconds: ClassVar[float] = CPU_SECONDS

    def __init__(
        self, data_dir: Path | None = None, revision: str | None = None, isolation: str = LEAST_ISOLATION
    ) -> None:
        super().__init__(data_dir, revision)
        self.isolation = known_level(isolation)

    def verify(self, problem: Problem, response: str) -> Verdict:
        """Return the verdict of the code judge."""
        return self.verify_batch([(problem, response)])[0]

    def verify_batch(self, pairs: Sequence[tuple[Problem, str]]) -> list[Verdict]:
        """Return the verdicts on many responses, in order; the programs run side by side, equal ones once."""
        jobs = [CodeJob(response=response, **problem.gold) for problem, response in pairs]
        return judge_code(jobs, cpu_seconds=self.cpu_seconds, isolation=self.isolation)

    def gold_trouble(self, gold: Any) -> str | None:
        """Return why a gold answer cannot be used, or `None`: it is an object of texts, and `tests` may be a list."""
        wanted = "it must be an object with prompt, entry_point and tests (and setup)"
        if not isinstance(gold, dict) or not {"prompt", "entry_point", "tests"} <= gold.keys() <= _GOLD:
            return wanted
        tests = gold["tests"] if isinstance(gold["tests"], list) and gold["tests"] else [gold["tests"]]
        texts = [*tests, *(value for name, value in gold.items() if name != "tests")]
        return None if all(isinstance(text, str) for text in texts) else f"{wanted}, and each of them is text"

    def gold_response(self, problem: Problem) -> str:
        """Return the canonical solution in a fenced block."""
        assert problem.solution is not None
        return problem.solution


def fenced(program: str) -> str:
    """Return a program as a Markdown block."""
    return f"```python\n{program.strip(chr(10))}\n```"
