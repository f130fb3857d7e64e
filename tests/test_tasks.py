"""Tasks: the benchmarks from a data folder, a user's own class, and the errors that name what to mend."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from smallwit.errors import UserError
from smallwit.tasks import Problem, check_gold, load_task, task_bytes, task_classes
from smallwit.tasks.base import SPLITS
from smallwit.verify import Verdict

DATA = Path(os.environ.get("SMALLWIT_DATA_DIR") or Path(__file__).parents[2] / "shared" / "data")
needs_data = pytest.mark.skipif(
    not (DATA / "gsm8k" / "test.jsonl").is_file(),
    reason="needs the benchmark files: set SMALLWIT_DATA_DIR to a folder that holds gsm8k/, math/, humaneval/, mbpp/",
)


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data folder with a few rows in the form of each benchmark."""
    questions = [f"Ann has {n} pens and buys 3 more. How many has she?" for n in range(200)]
    rows = [
        {"question": question, "answer": f"Ann has {n}+3=<<{n}+3={n + 3}>>{n + 3} pens.\n#### {n + 3:,}"}
        for n, question in enumerate(questions)
    ]
    write_rows(tmp_path / "gsm8k" / "train.jsonl", rows)
    write_rows(tmp_path / "gsm8k" / "test.jsonl", [{"question": "2 * 1000?", "answer": "2 * 1000.\n#### 2,000"}])
    rows = [
        {"id": f"math-train-{n}", "problem": f"What is ${n}$?", "solution": f"$\\boxed {n}$", "answer": f"{n}"}
        for n in range(60)
    ]
    write_rows(tmp_path / "math" / "train.jsonl.gz", rows)
    row = {"problem": "$1/2+1/4$?", "solution": "It is $\\boxed{\\frac{3}{4}}$."}
    write_rows(tmp_path / "math" / "test.jsonl", [row])
    return tmp_path


# ---- loading


def test_importing_the_tasks_is_cheap() -> None:
    code = "import sys, smallwit.tasks; print(*{'torch','datasets','sympy','numpy','pyarrow'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == ""


def test_every_built_in_task_can_be_made_without_data() -> None:
    for name in task_classes():
        assert load_task(name).name == name


def test_a_built_in_task_under_another_name(folder: Path) -> None:
    task = load_task("school", {"class": "gsm8k"}, folder)
    assert task.name == "school"
    assert next(iter(task.problems("test"))).gold == "2000"


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("gsm8", {}, "unknown task 'gsm8'; did you mean 'gsm8k'"),
        ("gsm8k", {"revison": "main"}, "unknown option 'revison'; did you mean 'revision'"),
        ("mine", {"class": 3}, "class is 3"),
        ("mine", {"class": "missing.py:Mine"}, r"missing\.py is not a file"),
        ("mine", {"class": "tasks/mine.py"}, "no class is named"),
    ],
)
def test_wrong_references(tmp_path: Path, name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load_task(name, options, None, tmp_path)
    assert "\n" not in str(caught.value)


# ---- the benchmarks' form


def test_gsm8k_rows_become_chat_answers(folder: Path) -> None:
    task = load_task("gsm8k", {}, folder)
    problem = next(problem for problem in task.problems("train") if problem.id == "gsm8k-train-1")
    assert problem.prompt == (
        "Ann has 1 pens and buys 3 more. How many has she?\n"
        "Please reason step by step, and put your final answer within \\boxed{}."
    )
    assert problem.solution == "Ann has 1+3=4 pens.\nThe answer is \\boxed{4}."
    assert problem.gold == "4"
    assert task.verify(problem, "So \\boxed{4}") == Verdict(1.0, 1.0, "4", "correct")
    assert task.verify(problem, "So 4").strict == 0.0


def test_math_gold_is_the_last_box_and_ids_come_from_the_text(folder: Path) -> None:
    task = load_task("math", {}, folder)
    (problem,) = task.problems("test")
    assert problem.gold == "\\frac{3}{4}"
    assert re.fullmatch(r"math-test-[0-9a-f]{12}", problem.id)
    train = list(task.problems("train"))
    assert train[0].solution is not None
    assert "\\boxed{" in train[0].solution  # "\boxed 0" in the row: a box without braces
    assert check_gold(task, "train") == []


def test_validation_is_cut_out_of_training(folder: Path) -> None:
    task = load_task("gsm8k", {}, folder)
    train, validation = task.problems("train"), task.problems("validation")
    ids = [problem.id for problem in [*train, *validation]]
    assert len(ids) == len(set(ids)) == 200
    assert 2 <= len(list(validation)) <= 25
    rows = [json.loads(line) for line in (folder / "gsm8k" / "train.jsonl").read_text().splitlines()]
    write_rows(folder / "gsm8k" / "train.jsonl", rows[::-1])
    again = load_task("gsm8k", {}, folder).problems("validation")
    assert {problem.prompt for problem in again} == {problem.prompt for problem in validation}


def test_a_prompt_of_its_own_frames_the_question_and_leaves_the_splits_as_they_are(folder: Path) -> None:
    plain, briefly = (load_task("gsm8k", given, folder) for given in ({}, {"prompt": "Briefly.\n{question}\nAnswer:"}))
    for split in ("train", "validation", "test"):
        pairs = list(zip(plain.problems(split), briefly.problems(split), strict=True))
        assert all(one.id == other.id for one, other in pairs)
        assert all(other.prompt == f"Briefly.\n{plain.question(one)}\nAnswer:" for one, other in pairs)  # type: ignore[attr-defined]
        assert all(briefly.question(other) == plain.question(one) for one, other in pairs)  # type: ignore[attr-defined]


@pytest.mark.parametrize("prompt", ["Solve it.", "{question} {question}", 3])
def test_a_prompt_without_one_place_for_the_question_is_refused(prompt: object) -> None:
    with pytest.raises(UserError, match=r"give a text with the place \{question\} once"):
        load_task("gsm8k", {"prompt": prompt})


def test_nothing_is_read_before_problems_are_asked_for(tmp_path: Path) -> None:
    task = load_task("gsm8k", {}, tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"gsm8k/test\.jsonl is not there; .*--data-dir"):
        task.problems("test")


def test_the_variable_names_the_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMALLWIT_DATA_DIR", str(folder))
    assert len(list(load_task("gsm8k").problems("test"))) == 1


@pytest.mark.slow
def test_without_files_or_hub_one_line_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SMALLWIT_DATA_DIR", raising=False)
    code = (
        "from smallwit.errors import UserError\nfrom smallwit.tasks import load_task\n"
        "try: load_task('gsm8k', {'revision': 'abc'}).problems('test')\nexcept UserError as error: print(error)"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": "/nonexistent-cache"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=120)
    message = done.stdout.strip()
    assert "\n" not in message
    assert message.startswith("task gsm8k: cannot read openai/gsm8k at revision abc from the Hugging Face hub")
    assert "gsm8k/test.jsonl" in message


def test_unknown_splits(folder: Path) -> None:
    with pytest.raises(UserError, match="no split 'dev'"):
        load_task("gsm8k", {}, folder).problems("dev")
    with pytest.raises(UserError, match="humaneval has no train split"):
        load_task("humaneval", {}, folder).problems("train")


def test_a_broken_training_row_is_named_and_a_broken_test_row_refused(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for split in ("train", "test"):
        with (folder / "gsm8k" / f"{split}.jsonl").open("a") as file:
            file.write('{"question": "cut o')
    task = load_task("gsm8k", {}, folder)
    assert len(list(task.problems("train"))) + len(list(task.problems("validation"))) == 200
    assert "train.jsonl:201: not JSON" in caplog.text
    with pytest.raises(UserError, match=r"test\.jsonl:2: not JSON"):
        task.problems("test")


def test_problems_have_the_strata_of_their_rows(folder: Path) -> None:
    row = {"problem": "1+1?", "solution": "\\boxed{2}", "type": "Precalculus", "level": "Level 5"}
    write_rows(folder / "math" / "test.jsonl", [row])
    write_rows(folder / "math" / "math500.jsonl", [row | {"subject": "Geometry", "level": 2, "answer": "2"}])
    assert next(iter(load_task("math", {}, folder).problems("test"))).strata == (
        ("subject", "Precalculus"),
        ("level", "5"),
    )
    assert next(iter(load_task("math500", {}, folder).problems("test"))).strata == (
        ("subject", "Geometry"),
        ("level", "2"),
    )
    assert next(iter(load_task("gsm8k", {}, folder).problems("test"))).strata == ()


def test_fingerprint_follows_the_content(folder: Path) -> None:
    before = load_task("gsm8k", {}, folder).fingerprint()  # type: ignore[attr-defined]
    assert before == load_task("gsm8k", {}, folder).fingerprint()  # type: ignore[attr-defined]
    write_rows(folder / "gsm8k" / "test.jsonl", [{"question": "2 * 1000?", "answer": "#### 2,001"}])
    assert before != load_task("gsm8k", {}, folder).fingerprint()  # type: ignore[attr-defined]


def test_check_gold_names_what_is_wrong(folder: Path) -> None:
    rows = [{"question": "1+1?", "answer": "#### 2"}, {"question": "1+2?", "answer": "Hm.\n####"}]
    write_rows(folder / "gsm8k" / "test.jsonl", rows)
    task = load_task("gsm8k", {}, folder)
    assert check_gold(task, "test") == ["gsm8k-test-1"]
    rows = [{"question": "1+1?", "answer": "Hm.\n####"}, {"question": "1+2?", "answer": "#### 3"}]
    write_rows(folder / "gsm8k" / "test.jsonl", rows)
    # The draw of one problem is the second row.
    assert check_gold(load_task("gsm8k", {}, folder), "test", limit=1) == []


# ---- the real benchmarks

SIZES = {
    "gsm8k": {"train": 7072, "validation": 401, "test": 1319},
    "math": {"train": 7107, "validation": 393, "test": 5000},
    "math500": {"train": 7107, "validation": 393, "test": 500},
    "humaneval": {"test": 164},
    "mbpp": {"train": 374, "validation": 90, "test": 500},
}
EMPTY_ANSWERS = ["math-train-5341", "math-train-5343"]  # \boxed{} in the published rows


@needs_data
@pytest.mark.parametrize("name", SIZES)
def test_sizes_and_splits(name: str) -> None:
    task = load_task(name, {}, DATA)
    problems = {split: list(task.problems(split)) for split in SIZES[name]}
    assert {split: len(listed) for split, listed in problems.items()} == SIZES[name]
    for split, listed in problems.items():
        assert len({problem.id for problem in listed}) == len(listed), split
    if "validation" in problems:
        assert not {p.prompt for p in problems["train"]} & {p.prompt for p in problems["validation"]}


@needs_data
@pytest.mark.parametrize("name", ["gsm8k", "math500", "humaneval", "mbpp"])
def test_first_gold_answers_score_one(name: str) -> None:
    assert check_gold(load_task(name, {}, DATA), "test", limit=20) == []


@needs_data
@pytest.mark.slow
@pytest.mark.parametrize("name", SIZES)
def test_all_gold_answers_score_one(name: str) -> None:
    task = load_task(name, {}, DATA)
    # MBPP's all pass in test_verify_code.py.
    failing = [id_ for split in SIZES[name] for id_ in check_gold(task, split, limit=20 if name == "mbpp" else None)]
    assert failing == (EMPTY_ANSWERS if name in ("math", "math500") else [])


@needs_data
def test_mbpp_shows_its_tests_and_is_judged_by_them() -> None:
    task = load_task("mbpp", {}, DATA)
    problem = next(iter(task.problems("train")))
    assert all(test in problem.prompt for test in problem.gold["tests"])
    wrong = f"```python\ndef {problem.gold['entry_point']}(*arguments):\n    return None\n```"
    verdicts = task.verify_batch([(problem, wrong), (problem, problem.solution or "")])
    assert [verdict.score for verdict in verdicts] == [0.0, 1.0]


# ---- a task of the user's own

OWN = """
from smallwit.tasks import Problem
from smallwit.verify import Verdict

class Echo:
    name = "echo"
    def __init__(self, size=3, word="hello"):
        self.size, self.word = size, word
    def problems(self, split):
        return [Problem(f"{split}-{i}", f"Say {self.word} {i}", f"{self.word} {i}") for i in range(self.size)]
    def verify(self, problem, response):
        right = float(response == problem.gold)
        return Verdict(right, right, response, "correct" if right else "wrong")
"""


def own(tmp_path: Path, source: str = OWN) -> Path:
    (tmp_path / "own.py").write_text(source)
    return tmp_path


def test_a_class_that_inherits_from_nothing(tmp_path: Path) -> None:
    base = own(tmp_path)
    task = load_task("echo", {"class": "own.py:Echo", "size": 2}, None, base)
    problems = list(task.problems("train"))
    assert [problem.prompt for problem in problems] == ["Say hello 0", "Say hello 1"]
    assert [v.score for v in task.verify_batch([(problems[0], "hello 0"), (problems[1], "no")])] == [1.0, 0.0]
    assert list(task.documents()) == []
    assert load_task(f"{base}/own.py:Echo").name == "echo"
    assert task_bytes("echo", {"class": "own.py:Echo"}, base) == (base / "own.py").read_bytes()
    assert task_bytes("gsm8k") == b""
    assert check_gold(task, "test") == ["test-0", "test-1"]  # nothing to check them with


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (OWN.replace("class Echo", "class Ecko"), "no class Echo; did you mean 'Ecko'"),
        (OWN.replace('name = "echo"', "pass"), "has no name"),
        (OWN.replace("def verify", "def grade"), r"no method verify; define verify\(problem, response\)"),
        (OWN.replace("def problems(self, split)", "def problems(self)"), r"problems must take \(split\)"),
        (OWN.replace("def verify", "async def verify"), "verify is async, and nobody awaits it"),
        (OWN.replace("size=3", "size"), "option 'size' is missing"),
        (OWN + "\nx = 1 +\n", r"own\.py:15: SyntaxError"),
        (OWN + "\nimport nowhere\n", r"own\.py:15: ModuleNotFoundError: No module named 'nowhere'"),
        ("class Echo(__import__('smallwit').tasks.Task if 0 else object):\n    name = 'echo'", "no method problems"),
    ],
    ids=["class", "name", "verify", "arguments", "async", "option", "syntax", "import", "empty"],
)
def test_what_a_class_lacks_is_named(tmp_path: Path, source: str, message: str) -> None:
    base = own(tmp_path, source)
    with pytest.raises(UserError, match=message) as caught:
        load_task("echo", {"class": "own.py:Echo"}, None, base)
    assert str(base / "own.py") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_task_that_inherits_must_define_its_methods(tmp_path: Path) -> None:
    base = own(tmp_path, "from smallwit.tasks import Task\nclass Echo(Task):\n    name = 'echo'\n")
    with pytest.raises(UserError, match="no method problems"):
        load_task("echo", {"class": "own.py:Echo"}, None, base)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("return Verdict(right, right", "return right == 1 and (right", "verify gave False"),
        ("right = float(response == problem.gold)", "right = 7.0", "score 7.0"),
        ("return [Problem(", "return [(", "give smallwit.tasks.Problem objects"),
    ],
)
def test_wrong_values_are_named_where_they_show(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in OWN
    task = load_task("echo", {"class": "own.py:Echo"}, None, own(tmp_path, OWN.replace(old, new)))
    with pytest.raises(UserError, match=message):
        task.verify(next(iter(task.problems("train"))), "x")


# ---- the documentation

DOC = Path(__file__).parents[1] / "docs" / "own-task.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", DOC.read_text(encoding="utf-8"), re.DOTALL)


def test_the_documented_task_works(tmp_path: Path) -> None:
    (source,) = blocks("python")
    assert len(source.splitlines()) < 40
    (tmp_path / "largest.py").write_text(source)
    task = load_task("largest", {"class": "largest.py:Largest", "problems": 500}, None, tmp_path)
    seen: set[str] = set()
    for split in SPLITS:
        problems = list(task.problems(split))
        assert len(problems) > 20
        assert not seen & {problem.prompt for problem in problems}
        seen |= {problem.prompt for problem in problems}
        assert check_gold(task, split) == []
    problem = next(iter(task.problems("test")))
    assert task.verify(problem, "\\boxed{0}").score == 0.0
    assert next(task.documents())
    assert isinstance(problem, Problem)


def test_the_documented_recipe_is_accepted(tmp_path: Path) -> None:
    from smallwit.pipeline.preflight import check_recipe
    from smallwit.recipe.file import read_recipe

    (tmp_path / "largest.py").write_text(blocks("python")[0])
    path = tmp_path / "largest.yaml"
    path.write_text(blocks("yaml")[0])
    recipe, lines = read_recipe(path)
    check_recipe(recipe, tmp_path, None, lines=lines)
