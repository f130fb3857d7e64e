"""Rows and tasks of one's own: what is wrong with them shows before anything is trained."""

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import pipeline_recipes as micro
import tiny
from smallwit.errors import UserError
from smallwit.models.chat import ChatTokenizer
from smallwit.models.handover import save_tokenizer
from smallwit.pipeline import runs as pipeline
from smallwit.pipeline.preflight import check_recipe
from smallwit.recipe.file import read_recipe
from smallwit.stages.train.lengths import check_lengths
from smallwit.storage.artifacts import read_manifest
from smallwit.tasks.base import Problem, Task
from smallwit.tasks.user_task import UserTask
from smallwit.training.problem_stream import TaskProblems
from smallwit.training.settings import Demonstrations, Rollouts
from smallwit.verify import Verdict

DEMONSTRATIONS = Demonstrations.model_validate({"kind": "demonstrations", "batch": 2})


class Echo(Task):
    """Problems as they are given."""

    name = "echo"

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.given = problems

    def problems(self, split: str) -> Any:
        return self.given

    def verify(self, problem: Problem, response: str) -> Verdict:
        return Verdict(0.0, 0.0, None, "wrong")


def said_of(problems: Sequence[Problem], longest: int, spec: Demonstrations | Rollouts = DEMONSTRATIONS) -> list[str]:
    """What is said of a source of these problems, for a model of so many tokens."""
    said: list[str] = []
    rows = [TaskProblems(Echo(problems), problems, 0, len(problems))]
    check_lengths("mine", spec, rows, ChatTokenizer(tiny.tokenizer()), longest, said.append)
    return said


def problem(number: int, words: int, answer: int) -> Problem:
    return Problem(f"p{number}", "has " * words, "1", "has " * answer)


class TestLengths:
    def test_rows_that_fit_are_not_spoken_of(self) -> None:
        assert said_of([problem(n, 10, 10) for n in range(3)], 64) == []

    def test_rows_that_lose_their_end_and_rows_that_are_left_out_are_counted_before_training(self) -> None:
        (line,) = said_of([problem(0, 10, 10), problem(1, 10, 90), problem(2, 10, 91), problem(3, 90, 10)], 64)
        assert (
            "source mine: of 4 rows 2 are longer than the model's 64 tokens and are trained without their end" in line
        )
        assert "1 are left out, as their prompts alone are that long" in line

    def test_where_all_prompts_are_too_long_that_is_said_and_nothing_of_rewards(self) -> None:
        with pytest.raises(UserError, match="the prompts of all 2 rows have the model's 64 tokens or more"):
            said_of([problem(0, 90, 1), problem(1, 80, 1)], 64)

    def test_prompts_of_rollouts_need_room_for_what_is_written(self) -> None:
        spec = Rollouts.model_validate({"kind": "rollouts", "prompts": 2, "max_new_tokens": 32})
        (line,) = said_of([problem(0, 10, 0), problem(1, 40, 0), problem(2, 90, 0)], 64, spec)
        assert "of 3 prompts 1 alone have the model's 64 tokens, and 1 leave less room than max_new_tokens (32)" in line


class TestIds:
    @pytest.mark.parametrize("given", [list, tuple, iter])
    def test_two_problems_with_one_id_are_refused_when_they_are_read(self, given: Callable[[Any], Any]) -> None:
        task = UserTask(Echo(given([problem(0, 1, 1), problem(1, 1, 1), problem(0, 2, 2)])), Path("own.py"), "Echo")
        with pytest.raises(UserError, match=r"own\.py: Echo\.problems\('train'\) gave two problems with the id 'p0'"):
            list(task.problems("train"))


OWN_TASK = """
import json
from pathlib import Path
from smallwit.tasks import Problem
from smallwit.verify import Verdict

ROWS = [json.loads(line) for line in (Path(__file__).parent / "rows.jsonl").read_text().splitlines()]

class Own:
    name = "own"

    def problems(self, split):
        return [Problem(row["id"], row["prompt"], "1", row["completion"]) for row in ROWS if row["split"] == split]

    def verify(self, problem, response):
        right = float(response == problem.solution)
        return Verdict(right, right, response, "correct" if right else "wrong")
"""

HEAD = """\
name: own
device: cpu
models: {mine: {folder: model}}
evaluation: {problems: 4, max_new_tokens: 4}
"""
STAGE = """\
  - name: sft
    kind: train
    from: mine
    sources: {mine: {kind: demonstrations, FROMbatch: 4}}
    objectives: [{kind: cross_entropy, source: mine}]
    steps: 2
"""
DATA = """\
  - name: mix
    kind: dataset
    steps:
      - {kind: gather, sources: [{kind: file, path: rows.jsonl, origin: me, license: MIT}]}
      - {kind: decontaminate, against: []}
"""


def run(folder: Path, recipe: str) -> tuple[str, Path]:
    """What a run says, and its folder."""
    (folder / "r.yaml").write_text(recipe)
    loaded, lines = read_recipe(folder / "r.yaml")
    check_recipe(loaded, folder, None, lines=lines)
    text = io.StringIO()
    console = Console(file=text, width=400)
    pipeline.run(loaded, base=folder, run_dir=folder / "run", data_dir=None, console=console)
    return text.getvalue(), folder / "run"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model, and rows of which a test row is a training row in other spacing."""
    monkeypatch.delenv("SMALLWIT_DATA_DIR", raising=False)
    model = tiny.tiny_model(rows=len(tiny.tokenizer()))
    model.save_pretrained(tmp_path / "model")
    save_tokenizer(tiny.tokenizer(), tmp_path / "model")
    rows = [{"id": f"r{n}", "prompt": f"What is {n} plus 1?", "completion": f"It is {n + 1}."} for n in range(8)]
    marked = [row | {"split": "train" if number < 6 else "test"} for number, row in enumerate(rows)]
    marked[7]["prompt"] = "what is  3 PLUS 1"
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in marked))
    (tmp_path / "own.py").write_text(OWN_TASK)
    return tmp_path


@pytest.mark.slow
def test_a_model_learns_from_rows_alone_without_a_task(folder: Path) -> None:
    said, run_dir = run(folder, HEAD + "stages:\n" + DATA + STAGE.replace("FROM", "from: mix, "))
    assert "mix: steps[0].sources[0]: columns that are not read: split" in said
    assert "nothing was measured: the recipe has no tasks" in said
    manifest = read_manifest(micro.artifact(run_dir, "sft"), check_content=True)
    assert (manifest["steps"], manifest["cut"], manifest["left_out"]) == (2, 0, 0)
    assert (run_dir / "report.html").is_file()


@pytest.mark.slow
def test_test_problems_among_the_training_problems_are_said(folder: Path) -> None:
    said, _ = run(folder, HEAD + "tasks: {own: {class: own.py:Own}}\nstages:\n" + STAGE.replace("FROM", ""))
    assert "source mine: 1 of the 2 test problems of task own are in its training data" in said
