"""MATH: competition problems (Hendrycks et al. 2021, arXiv 2103.03874), and MATH-500 (Lightman et al. 2023)."""

import hashlib
import re
from typing import ClassVar

from smallwit.rows import Row
from smallwit.tasks.base import Problem
from smallwit.tasks.boxed import BoxedTask, ask
from smallwit.tasks.dataset import DatasetSource
from smallwit.verify.extract import boxed

_SUBJECTS = (
    "algebra",
    "counting_and_probability",
    "geometry",
    "intermediate_algebra",
    "number_theory",
    "prealgebra",
    "precalculus",
)
_BARE_BOX = re.compile(r"\\boxed\s+([^\s{}$.,]+)")
_TRAIN = DatasetSource("math/train.jsonl.gz", "EleutherAI/hendrycks_math", "train", _SUBJECTS)


class MATH(BoxedTask):
    """7,500 training problems (a twentieth of them is the validation split) and 5,000 test problems.

    Two training rows have an empty answer (`\\boxed{}` in the source): math-train-5341 and math-train-5343. No response
    to them is ever right.
    """

    name = "math"
    origin = "EleutherAI/hendrycks_math"
    license = "MIT"
    sources: ClassVar = {
        "train": _TRAIN,
        "test": DatasetSource("math/test.jsonl", "EleutherAI/hendrycks_math", "test", _SUBJECTS),
    }
    columns: ClassVar = {"problem": str, "solution": str}
    strata: ClassVar = {"subject": ("subject", "type"), "level": ("level",)}

    def problem(self, row: Row, index: int, split: str) -> Problem:
        """Return the gold answer is the content of the solution's last box.

        Rows of the hub have no id: the text makes one.
        """
        solution = row["solution"].strip()
        if not boxed(solution):
            solution = _BARE_BOX.sub(r"\\boxed{\1}", solution)
        gold = row.get("answer", (boxed(solution) or [""])[-1])
        return Problem(row.get("id") or self._id(row, split), ask(row["problem"]), gold, solution)

    def _id(self, row: Row, split: str) -> str:
        return f"math-{split}-{hashlib.sha256(row['problem'].encode()).hexdigest()[:12]}"


class MATH500(MATH):
    """500 of MATH's test problems. Its training and validation splits are MATH's."""

    name = "math500"
    origin = "HuggingFaceH4/MATH-500"
    sources: ClassVar = {"train": _TRAIN, "test": DatasetSource("math/math500.jsonl", "HuggingFaceH4/MATH-500", "test")}

    def _id(self, row: Row, split: str) -> str:
        return str(row.get("unique_id") or super()._id(row, split))
