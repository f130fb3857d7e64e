"""New problems and solutions from a teacher that is a program: what is right is let in, what is wrong is kept out."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_resources import TASKS, step, task_rows
from scripted_teacher import ScriptedTeacher, solve_any
from smallwit.data.proposals import is_code
from smallwit.data.steps.augment import INSTRUCTION
from smallwit.rows import Row
from smallwit.tasks.base import Problem

ROWS = task_rows(12)
AUGMENT: dict[str, Any] = {"kind": "augment", "teacher": "t", "originals": False, "batch": 16}
NAMES = {"Tom": "Bob", "Ben": "Jim", "Sam": "Max", "Leo": "Pat", "Ana": "Liz", "Mia": "Amy", "Zoe": "Eve", "Eva": "Joy"}


def rename(question: str) -> str:
    """Another way to say a word problem of the family: other people."""
    return re.sub(r"\b[A-Z][a-z]{2}\b", lambda m: NAMES.get(m[0], m[0]), question)


def asked_question(prompt: str) -> str:
    """The question inside one of our templates, or the prompt itself."""
    return prompt.rpartition("\n\nQuestion: ")[2]


def teacher(
    write: Callable[[str], str], wrong: Callable[[str, int], bool] = lambda question, seed: False
) -> ScriptedTeacher:
    """Writes by `write` where it is asked to write, and solves the rest, with an error where `wrong` says so."""

    def rule(prompt: str, seed: int) -> str:
        if "\n\nQuestion: " in prompt:
            return write(asked_question(prompt))
        return f"#### {987654 if wrong(prompt, seed) else solve_any(prompt)}"

    return ScriptedTeacher(rule)


def run(
    folder: Path, way: dict[str, Any], rows: list[Row], t: ScriptedTeacher, **changes: Any
) -> tuple[list[Row], Any]:
    return step(folder, AUGMENT | {"ways": [way]} | changes, rows, t=t)


def reasons(folder: Path) -> list[str]:
    paths = (folder / "build" / "dropped").glob("*.jsonl")
    return [json.loads(line)["dropped"]["reason"] for path in paths for line in path.read_text().splitlines()]


def marked(question: str) -> str:
    return f"<question>{question}</question>"


class TestRephrase:
    def test_the_same_question_in_other_words_keeps_its_answer(self, tmp_path: Path) -> None:
        made, context = run(tmp_path, {"kind": "rephrase"}, ROWS, teacher(lambda question: marked(rename(question))))
        assert [row["prompt"] for row in made] == [rename(row["prompt"]) for row in ROWS]
        assert [row["answer"] for row in made] == [row["answer"] for row in ROWS]
        assert [row["source"] for row in made] == [row["id"] for row in ROWS]
        assert context.account.notes["accepted"] == {"rephrase": "12 of 12 (100.0%)"}

    def test_one_that_changes_the_answer_is_kept_out(self, tmp_path: Path) -> None:
        def write(question: str) -> str:
            number = re.search(r"\d+", question)
            assert number is not None
            return marked(question[: number.start()] + str(int(number[0]) + 1) + question[number.end() :])

        made, _ = run(tmp_path, {"kind": "rephrase"}, ROWS, teacher(write))
        same = [row for row in ROWS if solve_any(asked_question(write(row["prompt"])[10:-11])) == row["answer"]]
        assert [row["source"] for row in made] == [row["id"] for row in same]
        assert len(made) < len(ROWS) / 2

    @pytest.mark.parametrize(("share", "let_in"), [(0.5, 12), (0.9, 0)])
    def test_the_share_of_samples_that_must_agree_is_the_recipes(
        self, tmp_path: Path, share: float, let_in: int
    ) -> None:
        seen: dict[str, int] = {}

        def every_fourth(question: str, seed: int) -> bool:
            seen[question] = seen.get(question, 0) + 1
            return seen[question] % 4 == 0

        t = teacher(lambda question: marked(rename(question)), every_fourth)
        made, _ = run(tmp_path, {"kind": "rephrase"}, ROWS, t, check={"share": share})
        assert len(made) == let_in

    def test_without_a_known_answer_the_majority_gives_it(self, tmp_path: Path) -> None:
        row = {name: value for name, value in ROWS[0].items() if name != "answer"}
        (made,), _ = run(tmp_path, {"kind": "rephrase"}, [row], teacher(lambda question: marked(rename(question))))
        assert made["answer"] == ROWS[0]["answer"]

    def test_a_reply_in_another_form_is_named(self, tmp_path: Path) -> None:
        made, context = run(tmp_path, {"kind": "rephrase"}, ROWS[:2], teacher(lambda question: question))
        assert made == []
        assert context.account.dropped == {"rephrase": 2}
        assert reasons(tmp_path) == ["not one question between its marks"] * 2

    def test_an_instruction_is_not_rephrased(self, tmp_path: Path) -> None:
        row = ROWS[0] | {"prompt": f"{ROWS[0]['prompt']}\n{INSTRUCTION}"}
        t = teacher(lambda question: marked(rename(question)))
        made, _ = run(tmp_path, {"kind": "rephrase"}, [row], t)
        assert made[0]["prompt"] == f"{rename(ROWS[0]['prompt'])}\n{INSTRUCTION}"
        assert INSTRUCTION not in t.asked[0]


class TestBackward:
    @pytest.mark.parametrize("kind", ["backward", "self_verification"])
    def test_no_model_writes_the_question_and_the_hidden_number_is_the_answer(self, tmp_path: Path, kind: str) -> None:
        t = teacher(lambda question: "never asked")
        made, context = run(tmp_path, {"kind": kind}, ROWS, t)
        assert len(made) + context.account.dropped[kind] == len(ROWS)
        assert len(made) >= 10
        assert all(solve_any(row["prompt"]) == row["answer"] for row in made)
        assert all("value of X?" in question for question in t.asked)

    def test_a_wrong_solver_lets_nothing_in(self, tmp_path: Path) -> None:
        made, _ = run(tmp_path, {"kind": "backward"}, ROWS, teacher(str, lambda question, seed: True))
        assert made == []


class TestEvolve:
    def test_the_majority_is_the_answer_of_a_harder_question(self, tmp_path: Path) -> None:
        def write(question: str) -> str:
            ask = re.search(r"How many \w+ does (\w+) have (?:now|in the end)\?$", question)
            return marked(
                f"{question[: ask.start()]}Each costs 3 dollars. How many dollars do they cost in all?" if ask else ""
            )

        made, _ = run(tmp_path, {"kind": "evolve", "direction": "depth"}, ROWS, teacher(write))
        assert len(made) >= 3
        assert all(row["answer"] == solve_any(row["prompt"]) for row in made)
        assert all(int(row["answer"]) % 3 == 0 for row in made)
        assert {row["way"] for row in made} == {"evolve-depth"}

    def test_a_question_on_which_samples_differ_is_kept_out(self, tmp_path: Path) -> None:
        t = ScriptedTeacher(lambda p, seed: marked("How many stars?") if "Question: " in p else f"#### {seed}")
        made, _ = run(tmp_path, {"kind": "evolve", "direction": "breadth"}, ROWS[:3], t)
        assert made == []
        assert reasons(tmp_path) == ["25% of the answers agree, 50% must"] * 3

    def test_a_function_has_no_answer_to_agree_on(self, tmp_path: Path) -> None:
        t = teacher(lambda question: marked("another"))
        assert run(tmp_path, {"kind": "evolve"}, task_rows(1, "functions"), t)[0] == []
        assert is_code(TASKS["functions"])


class TestRewrite:
    LONG = ROWS[0] | {"completion": "Let us see. " * 9 + f"\n#### {ROWS[0]['answer']}"}

    def rewrite(self, folder: Path, text: str, **way: Any) -> list[Row]:
        way = {"kind": "shorten", "max_tokens": 20} | way
        return run(folder, way, [self.LONG], ScriptedTeacher(lambda prompt, seed: text))[0]

    def test_a_right_and_shorter_solution_takes_the_place_of_the_long_one(self, tmp_path: Path) -> None:
        (made,) = self.rewrite(tmp_path, f"4 + 4 = 8\n#### {ROWS[0]['answer']}")
        assert made["completion"] == f"4 + 4 = 8\n#### {ROWS[0]['answer']}"
        assert (made["prompt"], made["answer"]) == (ROWS[0]["prompt"], ROWS[0]["answer"])

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("#### 987654", "0% of the answers agree"),
            ("so " * 30 + f"\n#### {ROWS[0]['answer']}", "at most 20"),
            ("", "an empty solution"),
        ],
    )
    def test_one_that_is_wrong_or_too_long_is_kept_out(self, tmp_path: Path, text: str, reason: str) -> None:
        assert self.rewrite(tmp_path, text) == []
        assert reason in reasons(tmp_path)[0]

    def test_a_terse_solution_is_written_out(self, tmp_path: Path) -> None:
        text = f"First we add four and four, which is eight. Then we go on.\n#### {ROWS[0]['answer']}"
        t = ScriptedTeacher(lambda prompt, seed: text)
        (made,), _ = run(tmp_path, {"kind": "steps"}, ROWS[:1], t)
        assert made["completion"] == text
        assert ROWS[0]["completion"] in t.asked[0]


class TestFunctions:
    PROBLEM: Problem = TASKS["functions"].problems("train")[2]  # type: ignore[index]
    ROW = task_rows(1, "functions", 2)[0]
    TESTS = "assert g(2, 3) == 6\nassert g(4, 5) == 20\nassert g(0, 9) == 0\nassert g(2, 2) == 5"

    def teacher(self, program: str, tests: str = TESTS) -> ScriptedTeacher:
        return ScriptedTeacher(lambda prompt, seed: tests if prompt.startswith("Write tests") else program)

    def test_programs_and_tests_that_agree_are_a_problem_with_gold(self, tmp_path: Path) -> None:
        row = {name: value for name, value in self.ROW.items() if name not in ("answer", "completion")}
        (made,), _ = run(tmp_path, {"kind": "functions"}, [row], self.teacher("def g(a, b):\n    return b * a"))
        assert made["answer"] == {"entry_point": "g", "cases": [[[2, 3], 6], [[4, 5], 20], [[0, 9], 0]]}
        problem = Problem("p", made["prompt"], made["answer"])
        assert TASKS["functions"].verify(problem, self.PROBLEM.solution or "").strict == 1.0

    def test_tests_are_proved_by_the_rows_own_program(self, tmp_path: Path) -> None:
        t = self.teacher("never asked for")
        (made,), _ = run(tmp_path, {"kind": "tests"}, [self.ROW], t)
        assert len(made["answer"]["cases"]) == 3
        assert made["completion"] == self.ROW["completion"]
        assert len(t.asked) == 1

    def test_too_few_tests_prove_nothing(self, tmp_path: Path) -> None:
        assert run(tmp_path, {"kind": "tests", "least": 4}, [self.ROW], self.teacher("-"))[0] == []
        assert reasons(tmp_path) == ["3 tests hold, 4 must"]

    def test_tests_that_a_constant_passes_prove_nothing(self, tmp_path: Path) -> None:
        t = self.teacher("-", "assert g(0, 1) == 0\nassert g(0, 2) == 0\nassert g(3, 0) == 0")
        assert run(tmp_path, {"kind": "tests"}, [self.ROW], t)[0] == []
        assert reasons(tmp_path) == ["all tests expect the same value, so a constant would pass"]


def test_rows_come_out_behind_their_originals_and_in_the_order_of_the_ways(tmp_path: Path) -> None:
    ways = [{"kind": "rephrase"}, {"kind": "backward"}]
    t = teacher(lambda question: marked(rename(question)))
    made, _ = step(tmp_path, AUGMENT | {"ways": ways, "originals": True}, ROWS[:2], t=t)
    assert [row.get("way") for row in made] == [None, "rephrase", "backward"] * 2


def test_a_second_build_asks_nothing_and_makes_the_same(tmp_path: Path) -> None:
    ways = [{"kind": "rephrase"}, {"kind": "backward"}]
    t = teacher(lambda question: marked(rename(question)))
    first, _ = step(tmp_path, AUGMENT | {"ways": ways}, ROWS, t=t)
    again = teacher(lambda question: "something else")
    second, _ = step(tmp_path, AUGMENT | {"ways": ways}, ROWS, t=again)
    assert (second, again.asked) == (first, [])
