"""The suites of `smallwit eval`: every loaded task's own answers score 1, and replicas ask what the others ask."""

import gzip
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from smallwit.errors import UserError
from smallwit.evaluation.protocols import named_protocol, protocols
from smallwit.evaluation.protocols.base import text_key
from smallwit.evaluation.protocols.default import DEFAULT
from smallwit.evaluation.protocols.minerva_math import DEMONSTRATIONS
from smallwit.tasks import check_gold, load_task
from smallwit.tasks.base import Problem, Task
from smallwit.tasks.prompt import Prompt
from smallwit.verify import Verdict
from test_tasks import DATA, needs_data, write_rows

SIZES = {"aime24": 30, "aime25": 30, "amc23": 40, "minerva": 272, "olympiadbench": 675, "humaneval+": 164}


@needs_data
@pytest.mark.parametrize("name", SIZES)
def test_sizes(name: str) -> None:
    problems = list(load_task(name, {}, DATA).problems("test"))
    assert len(problems) == len({problem.id for problem in problems}) == SIZES[name]


@needs_data
@pytest.mark.parametrize("name", ["aime24", "aime25", "amc23", "minerva", "olympiadbench"])
def test_gold_answers_score_one(name: str) -> None:
    assert check_gold(load_task(name, {}, DATA), "test") == []


def only(task: Task) -> Problem:
    (problem,) = task.problems("test")
    return problem


def scores(task: Task, responses: Sequence[str]) -> list[float | None]:
    return [verdict.score for verdict in task.verify_batch([(only(task), response) for response in responses])]


# ---- the rows' quirks


@pytest.mark.parametrize(
    ("name", "file", "row", "gold"),
    [
        ("aime24", "aime24", {"id": 3, "problem": "?", "answer": "025"}, "025"),
        ("aime25", "aime25", {"problem": "?", "answer": "336^\\circ"}, "336^\\circ"),
        ("amc23", "amc23", {"id": 0, "question": "?", "answer": 27.0}, "27"),
        ("amc23", "amc23", {"id": 0, "question": "?", "answer": 2.5}, "2.5"),
        ("minerva", "minerva_math", {"idx": 1, "problem": "?", "solution": "$\\boxed{1}$ so $\\boxed{1.6}$"}, "1.6"),
        (
            "olympiadbench",
            "olympiadbench",
            {"id": 9, "question": "?", "final_answer": ["$\\frac{1}{2}$"]},
            "\\frac{1}{2}",
        ),
        ("olympiadbench", "olympiadbench", {"id": 9, "question": "?", "final_answer": ["$8$,$4$"]}, "8,4"),
    ],
)
def test_answers_are_read_from_each_form(tmp_path: Path, name: str, file: str, row: dict[str, Any], gold: str) -> None:
    write_rows(tmp_path / "math_other" / f"{file}.jsonl", [row])
    task = load_task(name, {}, tmp_path)
    assert only(task).gold == gold
    assert check_gold(task, "test") == []


@pytest.mark.parametrize(
    ("name", "row", "message"),
    [
        ("aime24", {"problem": "?"}, "row 0 has no `answer`"),
        ("aime24", {"answer": "1"}, "row 0 has neither `problem` nor `question`"),
        ("olympiadbench", {"question": "?", "final_answer": "1"}, "row 0 has no list `final_answer`"),
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path: Path, name: str, row: dict[str, Any], message: str) -> None:
    write_rows(tmp_path / "math_other" / f"{name}.jsonl", [row])
    with pytest.raises(UserError, match=f"task {name}: {message}"):
        load_task(name, {}, tmp_path).problems("test")


def test_svamp_puts_the_question_behind_the_story(tmp_path: Path) -> None:
    row = {"ID": "chal-1", "Body": "Ann has 3 pens ", "Question": "How many has she?", "Answer": 3.0}
    write_rows(tmp_path / "math_other" / "svamp.jsonl", [row])
    task = load_task("svamp", {}, tmp_path)
    assert only(task).prompt.startswith("Ann has 3 pens. How many has she?\n")
    assert only(task).id == "svamp-chal-1"
    assert check_gold(task, "test") == []


# ---- EvalPlus' tests

MBPP_PLUS = {
    "task_id": 2,
    "prompt": "Write a function to find the shared elements of two lists.",
    "code": "def shared(a, b):\n  return tuple(set(a) & set(b))",
    "test_imports": ["import math"],
    "test_list": ["assert set(shared((3, 4), (4, 5))) == set((4,))"],
    "test": (
        "import numpy as np\n\ndef is_floats(x):\n    return isinstance(x, float)\n\n"
        "def assertion(out, exp, atol):\n    assert set(out) == set(exp) and math.pi\n\n"
        "inputs = [[(3, 4), (4, 5)], [(1, 2), (3, 4)]]\nresults = [(4,), ()]\n"
        "for i, (inp, exp) in enumerate(zip(inputs, results)):\n    assertion(shared(*inp), exp, 0)\n"
    ),
}


@pytest.fixture
def mbpp_plus(tmp_path: Path) -> Task:
    path = tmp_path / "mbpp" / "MbppPlus-OriginFmt.jsonl.gz"
    path.parent.mkdir()
    path.write_bytes(gzip.compress(json.dumps(MBPP_PLUS).encode() + b"\n"))
    return load_task("mbpp+", {}, tmp_path)


def test_mbpp_plus_runs_the_published_loop_outside_of_the_program(mbpp_plus: Task) -> None:
    assert only(mbpp_plus).id == "mbpp-2"
    assert "assert set(shared((3, 4), (4, 5))) == set((4,))" in only(mbpp_plus).prompt
    assert check_gold(mbpp_plus, "test") == []
    wrong = "```python\ndef shared(a, b):\n    return (4,)\n```"
    assert scores(mbpp_plus, [wrong]) == [0.0], "it passes the first test, which is the only one that MBPP shows"


def test_a_test_without_a_loop_is_refused(mbpp_plus: Task, tmp_path: Path) -> None:
    row = MBPP_PLUS | {"test": "assert shared((1,), (1,)) == (1,)"}
    path = tmp_path / "mbpp" / "MbppPlus-OriginFmt.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps(row).encode() + b"\n"))
    with pytest.raises(UserError, match="the test of task_id 2 has no loop over its inputs that calls shared"):
        mbpp_plus.problems("test")


@needs_data
def test_humaneval_plus_finds_what_humaneval_does_not() -> None:
    plus, plain = load_task("humaneval+", {}, DATA), load_task("humaneval", {}, DATA)
    problem, same = next(iter(plus.problems("test"))), next(iter(plain.problems("test")))
    assert problem.prompt == same.prompt
    # Neighbours only, and not sorted: right on the seven published cases of HumanEval/0, but not on all.
    careless = (
        "```python\ndef has_close_elements(numbers, threshold):\n    import itertools\n"
        "    return any(0 < abs(a - b) < threshold for a, b in itertools.combinations(numbers, 2)) or (\n"
        "        len(numbers) != len(set(numbers)) and threshold > 0.05)\n```"
    )
    assert plain.verify(same, careless).score == 1.0
    assert plus.verify(problem, careless).score == 0.0


@needs_data
def test_the_test_of_find_zero_can_be_passed() -> None:
    task = load_task("humaneval+", {}, DATA)
    problem = list(task.problems("test"))[32]
    assert problem.id == "HumanEval/32"
    assert task.verify(problem, problem.solution or "").score == 1.0


# ---- what replicas ask


def first_prompt(name: str, task: str) -> Prompt:
    loaded = load_task(task, {}, DATA)
    return named_protocol(name).prompts(loaded, list(loaded.problems("test"))[:1])[0]


@needs_data
def test_the_gsm8k_replica_has_five_published_rows_before_the_question() -> None:
    text = first_prompt("lm-eval-gsm8k", "gsm8k").text
    assert text is not None
    parts = text.split("\n\n")
    assert len(parts) == 6
    assert all(part.startswith("Question: ") and "\nAnswer: " in part and "\n#### " in part for part in parts[:5])
    assert "<<" in parts[0], "calculator marks and all"
    assert parts[5].startswith("Question: Janet\u2019s ducks lay 16 eggs per day.")
    assert parts[5].endswith("\nAnswer:")


@needs_data
def test_the_minerva_replica_has_minerva_s_demonstrations() -> None:
    text = first_prompt("minerva-math", "math500").text
    assert text is not None
    parts = text.split("Problem:\n")[1:]
    assert len(parts) == 5
    answers = [part.split("The final answer is ")[1].split(" I hope")[0] for part in parts[:4]]
    assert answers == ["$[2,5)$.", "$24$.", "$16$.", "$-\\frac{2}{3}$."]
    assert all(part.endswith("I hope it is correct.\n\n") for part in parts[:4])
    assert parts[4].endswith("\n\nSolution:")


def gsm8k_rows(count: int) -> list[dict[str, Any]]:
    return [{"question": f"What is {i} + {i}?", "answer": f"It is {2 * i}.\n#### {2 * i}"} for i in range(count)]


def test_no_problem_of_gsm8k_is_shown_its_own_solution(tmp_path: Path) -> None:
    rows = gsm8k_rows(9)
    write_rows(tmp_path / "gsm8k/train.jsonl", rows)
    write_rows(tmp_path / "gsm8k/test.jsonl", [{"question": "What is  3 + 3? ", "answer": "#### 6"}, rows[7]])
    task = load_task("gsm8k", {}, tmp_path)
    for split, count in (("train", 9), ("test", 2)):
        problems = [*task.problems(split), *(task.problems("validation") if split == "train" else ())]
        assert len(problems) == count
        for problem, prompt in zip(problems, named_protocol("lm-eval-gsm8k").prompts(task, problems), strict=True):
            assert prompt.text is not None
            *shots, asked = prompt.text.split("\n\n")
            assert len(shots) == 5
            own = asked.removeprefix("Question: ").removesuffix("\nAnswer:")
            assert not any("".join(own.split()) in "".join(shot.split()) for shot in shots), problem.id


@needs_data
def test_no_problem_of_math_is_shown_its_own_solution() -> None:
    task = load_task("math", {}, DATA)
    problems = [problem for split in ("train", "validation") for problem in task.problems(split)]
    shown = [p for p in problems if text_key(task.row(p)["problem"]) in DEMONSTRATIONS]  # type: ignore[attr-defined]
    assert len(shown) == 4
    for prompt in named_protocol("minerva-math").prompts(task, shown):
        assert prompt.text is not None
        assert prompt.text.count("Problem:\n") == 4
        assert prompt.text.count("I hope it is correct.") == 3


@needs_data
def test_qwen_s_instruction_is_the_system_message() -> None:
    system, user = first_prompt("qwen-boxed", "gsm8k").messages
    assert system["content"] == "Please reason step by step, and put your final answer within \\boxed{}."
    assert user["content"].endswith("How much in dollars does she make every day at the farmers' market?")


@needs_data
def test_evalplus_begins_the_answer() -> None:
    prompt = first_prompt("evalplus", "humaneval")
    (user,) = prompt.messages
    assert user["content"].startswith("Please provide a self-contained Python script that solves the following problem")
    assert "\n```\nfrom typing import List\n\n\ndef has_close_elements(" in user["content"]
    assert prompt.prefix.endswith("tests:\n```python\n")
    assert (first_prompt("evalplus-base", "humaneval").text or "").startswith("from typing import List")


# ---- how replicas read


def read(name: str, task: Task, responses: Sequence[str]) -> list[Verdict]:
    return named_protocol(name).grade(task, [(only(task), each) for each in responses])


def test_no_two_protocols_name_the_same_extractor_and_grader() -> None:
    assert len({(each.extractor, each.grader) for each in protocols().values()}) == len(protocols())
    assert (DEFAULT.extractor, DEFAULT.grader) == ("task", "task")


@pytest.fixture
def school(tmp_path: Path) -> Task:
    write_rows(tmp_path / "gsm8k" / "test.jsonl", [{"question": "2 * 1000?", "answer": "2 * 1000.\n#### 2,000"}])
    return load_task("gsm8k", {}, tmp_path)


def test_lm_eval_s_two_filters_are_strict_and_lenient(school: Task) -> None:
    verdicts = read("lm-eval-gsm8k", school, ["It is 2000.", "#### 2,000", "#### 2000 or 3", "none"])
    assert [(v.strict, v.score) for v in verdicts] == [(0.0, 1.0), (1.0, 1.0), (1.0, 0.0), (0.0, 0.0)]
    assert verdicts[3].reason == "no-answer"


def test_qwen_s_chain_falls_back_to_the_last_number(school: Task) -> None:
    verdicts = read("qwen-boxed", school, ["\\boxed{2000}", "It is 2,000", "It is 3", ""])
    assert [v.score for v in verdicts] == [v.strict for v in verdicts] == [1.0, 1.0, 0.0, 0.0]


@pytest.mark.parametrize("name", ["evalplus", "evalplus-base"])
@needs_data
def test_evalplus_reads_a_program_without_its_fences(name: str) -> None:
    task = load_task("humaneval", {}, DATA)
    problem = list(task.problems("test"))[2]  # truncate_number
    body = "    return number % 1.0\n"
    whole = "def truncate_number(number):\n" + body
    grade = named_protocol(name).grade
    replies = [body, "    return 0.5\n"] if name == "evalplus-base" else [whole, whole.replace("%", "//")]
    assert [v.score for v in grade(task, [(problem, reply) for reply in replies])] == [1.0, 0.0]


# ---- reasoning-gym


def test_a_family_without_its_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "reasoning_gym.factory", None)
    with pytest.raises(UserError, match=r"pip install 'smallwit\[reasoning-gym\]'"):
        load_task("reasoning-gym:leg_counting")


def test_a_family_s_answers_score_one_and_its_splits_share_nothing() -> None:
    pytest.importorskip("reasoning_gym", reason="needs the extra reasoning-gym")
    task = load_task("reasoning-gym:leg_counting", {"size": 20})
    assert task.name == "reasoning-gym:leg_counting"
    assert check_gold(task, "test") == []
    splits = [{problem.prompt for problem in task.problems(split)} for split in ("train", "test")]
    assert [len(split) for split in splits] == [20, 20]
    assert not splits[0] & splits[1]
    problem = next(iter(task.problems("test")))
    readings = [f"<answer>{problem.gold}</answer>", f"\\boxed{{{problem.gold}}}", problem.gold, "<answer></answer>"]
    verdicts = task.verify_batch([(problem, response) for response in readings])
    assert [(v.score, v.strict) for v in verdicts] == [(1.0, 1.0), (1.0, 0.0), (0.0, 0.0), (0.0, 0.0)]


@pytest.mark.parametrize("family", ["spiral_matrix", "simple_integration", "countdown"])
def test_a_family_whose_scorer_runs_responses_is_refused(family: str) -> None:
    pytest.importorskip("reasoning_gym", reason="needs the extra reasoning-gym")
    with pytest.raises(UserError, match="its scorer runs the response as code"):
        load_task(f"reasoning-gym:{family}")


def test_an_unknown_family_is_named_with_the_nearest() -> None:
    pytest.importorskip("reasoning_gym", reason="needs the extra reasoning-gym")
    with pytest.raises(UserError, match="no family 'leg_countin'; did you mean 'leg_counting'"):
        load_task("reasoning-gym:leg_countin")
