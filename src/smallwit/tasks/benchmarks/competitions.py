r"""Small mathematics benchmarks: AIME, AMC, Minerva's undergraduate problems, OlympiadBench, SVAMP."""

from typing import Any, ClassVar

from smallwit.errors import UserError
from smallwit.rows import Row
from smallwit.tasks.base import Problem
from smallwit.tasks.boxed import BoxedTask, ask
from smallwit.tasks.dataset import DatasetSource
from smallwit.verify.extract import boxed


class Competition(BoxedTask):
    """Rows with `problem` (or `question`) and `answer`, a text or a number; only a test split.

    A whole number that is stored as 27.0 is 27. A row is named by its `id` (or `idx`), else by its place.
    """

    columns: ClassVar = {}

    def problem(self, row: Row, index: int, split: str) -> Problem:
        """Return the question with the instruction, and the answer as text."""
        name = next((row[key] for key in ("id", "idx") if row.get(key) is not None), index)
        question = row["problem"] if "problem" in row else row.get("question")
        if not isinstance(question, str):
            raise UserError(f"task {self.name}: row {index} has neither `problem` nor `question`; the file is another")
        return Problem(f"{self.name}-{name}", ask(question), self._gold(row, index), self._solution(row))

    def _gold(self, row: Row, index: int) -> str:
        if row.get("answer") is None:
            raise UserError(f"task {self.name}: row {index} has no `answer`; the file is another")
        return number_text(row["answer"])

    def _solution(self, row: Row) -> str | None:
        """Return no solution: none of these datasets has all solutions in the declared format."""
        return None


class AIME24(Competition):
    """The 30 problems of the American Invitational Mathematics Examinations of 2024."""

    name = "aime24"
    origin = "HuggingFaceH4/aime_2024"
    sources: ClassVar = {"test": DatasetSource("math_other/aime24.jsonl", "HuggingFaceH4/aime_2024", "train")}


class AIME25(Competition):
    """The 30 problems of 2025. One answer is written in degrees."""

    name = "aime25"
    origin = "opencompass/AIME2025"
    sources: ClassVar = {
        "test": DatasetSource("math_other/aime25.jsonl", "opencompass/AIME2025", "test", ("AIME2025-I", "AIME2025-II"))
    }


class AMC23(Competition):
    """40 problems of the American Mathematics Competitions 12A and 12B of 2023, those with whole numbers as answers."""

    name = "amc23"
    origin = "math-ai/amc23"
    sources: ClassVar = {"test": DatasetSource("math_other/amc23.jsonl", "math-ai/amc23", "test")}


class Minerva(Competition):
    """272 problems of undergraduate courses (Lewkowycz et al. 2022, arXiv 2206.14858): OCWCourses.

    Rows without an `answer` have it in the last box of their `solution`.
    """

    name = "minerva"
    origin = "math-ai/minervamath"
    sources: ClassVar = {"test": DatasetSource("math_other/minerva_math.jsonl", "math-ai/minervamath", "test")}
    strata: ClassVar = {"course": ("type",)}

    def _gold(self, row: Row, index: int) -> str:
        if row.get("answer") is None and isinstance(row.get("solution"), str) and (found := boxed(row["solution"])):
            return found[-1]
        return super()._gold(row, index)


class OlympiadBench(Competition):
    """675 open-ended problems in English with text only (He et al. 2024, arXiv 2402.14008): OE_TO_maths_en_COMP.

    `final_answer` is a list, each entry in dollar signs or not.
    """

    name = "olympiadbench"
    origin = "Hothan/OlympiadBench"
    license = "Apache-2.0"
    strata: ClassVar = {"subject": ("subfield",)}
    sources: ClassVar = {
        "test": DatasetSource(
            "math_other/olympiadbench.jsonl", "Hothan/OlympiadBench", "train", ("OE_TO_maths_en_COMP",)
        )
    }

    def _gold(self, row: Row, index: int) -> str:
        answers = row.get("final_answer")
        if not isinstance(answers, list) or not answers:
            raise UserError(f"task {self.name}: row {index} has no list `final_answer`; the file is another")
        return ", ".join(str(answer).replace("$", "").strip() for answer in answers)


class SVAMP(Competition):
    """1,000 elementary word problems (Patel et al. 2021, arXiv 2103.07191); 300 of them in the hub's test split."""

    name = "svamp"
    origin = "ChilleD/SVAMP"
    license = "MIT"
    sources: ClassVar = {"test": DatasetSource("math_other/svamp.jsonl", "ChilleD/SVAMP", "test")}
    columns: ClassVar = {"Body": str, "Question": str}

    def problem(self, row: Row, index: int, split: str) -> Problem:
        """Return the story, then the question."""
        body = row["Body"].strip()
        question = f"{body if body.endswith(('.', '?', '!')) else body + '.'} {row['Question'].strip()}"
        gold = number_text(row.get("Answer"))
        return Problem(f"svamp-{row.get('ID') or index}", ask(question), gold)


def number_text(answer: Any) -> str:
    """Return an answer as text; a float that is whole without its zero."""
    return str(int(answer)) if isinstance(answer, float) and answer.is_integer() else str(answer).strip()
