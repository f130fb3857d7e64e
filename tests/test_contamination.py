"""What counts as a copy of an evaluation problem, and what does not."""

import pytest

from smallwit.data.contamination import ContaminationIndex
from smallwit.tasks.base import Problem

PROBLEM = (
    "A farmer keeps 12 goats in each of 7 stone barns near the river, sells a third of them at the spring fair, and "
    "then buys 5 llamas. How many animals graze there now?"
)
SOLUTION = (
    "At first the farmer has 84 goats because 7 barns hold 12 each; after the fair 56 remain, so with llamas 61 graze."
)


@pytest.fixture
def evaluations() -> ContaminationIndex:
    fillers = [
        Problem(f"f{n}", f"What is the sum of {n} and its square?\nThink step by step please.", str(n + n * n))
        for n in range(20)
    ]
    mine = Problem("goats", f"{PROBLEM}\nThink step by step please.", "61", SOLUTION)
    short = Problem("short", "Who wrote the longest letter ever?\nThink step by step please.", "7")
    return ContaminationIndex({"farm": [mine, short, *fillers]})


class TestContamination:
    @pytest.mark.parametrize(
        ("prompt", "completion", "answer", "rule"),
        [
            (PROBLEM, None, None, "exact"),
            (PROBLEM.upper().replace(",", " ;").replace(" ", "  "), None, None, "exact"),
            (f"Solve this.\n{PROBLEM}\nShow your work.", None, None, "long"),
            (PROBLEM.replace("barns", "stables"), None, None, "long"),
            ("Tell me of a farm.", f"Sure. {SOLUTION} That is all.", None, "long"),
            ("A farmer keeps 12 goats in each of 7 wooden huts. How many?", None, "61", "short"),
            ("Who wrote the longest letter ever?", None, None, "exact"),
            ("Answer: who wrote the longest letter ever?", None, "7.0", "inside"),
            ("Who wrote the longest epistle ever?", None, "7", "one word"),
        ],
    )
    def test_copies_are_found(
        self, evaluations: ContaminationIndex, prompt: str, completion: str | None, answer: str | None, rule: str
    ) -> None:
        match = evaluations.match(prompt, completion, answer)
        assert match is not None
        assert match.rule == rule
        assert match.known.id == ("short" if "letter" in prompt or "epistle" in prompt else "goats")

    @pytest.mark.parametrize(
        ("prompt", "answer"),
        [
            ("A farmer keeps 12 goats in each of 7 wooden huts. How many?", "84"),
            ("Who wrote the longest epistle ever?", "8"),
            ("Answer: who wrote the longest letter ever?", "8"),
            ("What is the sum of 400 and its square?\nThink step by step please.", "160400"),
            ("How many sheep are there?\nThink step by step please.", "61"),
        ],
    )
    def test_other_problems_pass_though_they_share_words_or_the_instruction(
        self, evaluations: ContaminationIndex, prompt: str, answer: str
    ) -> None:
        assert evaluations.match(prompt, None, answer) is None

    def test_latex_that_only_looks_different_is_the_same(self) -> None:
        known = ContaminationIndex({"m": [Problem("p", "Find $\\dfrac{x}{2}$ if $x=10{,}000$.", "5000")]})
        match = known.match("find \\[ \\frac{ x }{ 2 } \\] if \\quad $ x = \\left( 10,000 \\right) $", None, None)
        assert match is not None
        assert match.rule == "exact"
