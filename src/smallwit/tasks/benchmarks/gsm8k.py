"""GSM8K: grade-school word problems (Cobbe et al. 2021, arXiv 2110.14168)."""

import re
from typing import ClassVar

from smallwit.errors import UserError
from smallwit.rows import Row
from smallwit.tasks.base import Problem
from smallwit.tasks.boxed import BoxedTask, ask
from smallwit.tasks.dataset import DatasetSource

_CALCULATOR_MARK = re.compile(r"<<[^<>]*>>")


class GSM8K(BoxedTask):
    """7,473 training problems (a twentieth of them is the validation split) and 1,319 test problems."""

    name = "gsm8k"
    origin = "openai/gsm8k"
    license = "MIT"
    sources: ClassVar = {
        split: DatasetSource(f"gsm8k/{split}.jsonl", "openai/gsm8k", split, ("main",)) for split in ("train", "test")
    }
    columns: ClassVar = {"question": str, "answer": str}

    def problem(self, row: Row, index: int, split: str) -> Problem:
        """Return the problem. Its solution has no calculator marks, and the number after `####` in a box."""
        worked = worked_answer(row["answer"])
        if worked is None:
            raise UserError(f"task gsm8k: row {index} of {split} has no line '#### answer'; the file is not GSM8K")
        solution, gold = worked
        return Problem(f"gsm8k-{split}-{index}", ask(row["question"]), gold, solution)


def worked_answer(text: str) -> tuple[str, str] | None:
    """Return a terse answer in GSM8K's style as a chat answer, and its number.

    Calculator marks are removed, and the number is put in a box. `None` for a text without a line `#### answer`.
    """
    steps, mark, gold = text.rpartition("####")
    if not mark:
        return None
    gold = gold.strip().replace(",", "")
    steps = _CALCULATOR_MARK.sub("", steps).strip()
    return f"{steps}\nThe answer is \\boxed{{{gold}}}.", gold
