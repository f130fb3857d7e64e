"""The code judge: what program is read from a response, and what verdict it gets."""

import ast
import json
import os
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from smallwit.errors import UserError
from smallwit.verify.code import CodeJob, judge_code
from smallwit.verify.sandbox.extract import MAX_CHARACTERS, extract_program
from smallwit.verify.verdict import Verdict

DATA = Path(os.environ.get("SMALLWIT_DATA_DIR") or Path(__file__).parents[2] / "shared" / "data")
needs_data = pytest.mark.skipif(
    not (DATA / "humaneval").is_dir(), reason=f"no benchmark data: set SMALLWIT_DATA_DIR (looked in {DATA})"
)

ADD = "def add(a, b):\n    return a + b\n"
STUB = 'from typing import List\n\n\ndef add(a: int, b: int) -> int:\n    """Add."""\n'


def read(response: str, prompt: str = "") -> tuple[str, bool] | None:
    program = extract_program(prompt, "add", response)
    return None if program is None else (program.answer, program.strict)


def one(response: str, **job: Any) -> Verdict:
    return judge_code([CodeJob(**{"prompt": "", "entry_point": "add", "response": response, **job})], workers=1)[0]


@pytest.mark.parametrize(
    ("response", "answer", "strict"),
    [
        (f"```python\n{ADD}```", ADD, True),
        (f"Sure!\n\n```py\n{ADD}```\nThat adds.", ADD, True),
        (f"```Python3\n{ADD}```", ADD, True),
        (f"```\n{ADD}```", ADD, False),
        (f"```python\n{ADD}", ADD, False),
        (f"~~~~python\n{ADD}~~~~", ADD, True),
        (f"1. So:\n   ```python\n{textwrap.indent(ADD, '   ')}   ```\n", ADD, True),
        (f"```python\nadd(1, 2)\n```\nand\n```python\n{ADD}```\nuse\n```\nadd(1, 2)\n```", ADD, True),
        (f"```python\ndef add(): pass\n```\nbetter:\n```python\n{ADD}```", ADD, True),
        ("```python\nadd = lambda a, b: a + b\n```", "add = lambda a, b: a + b\n", True),
        (f"```python\n{ADD}print(add(1, 2)\n```", ADD, False),
        (ADD, ADD, True),
        (ADD.replace("\n", "\r\n"), ADD, True),
        (f"Here it is:\n{ADD}It adds the two.\n", ADD, False),
        (f"import math\n{ADD}", f"import math\n{ADD}", True),
    ],
)
def test_program_is_found(response: str, answer: str, strict: bool) -> None:
    assert read(response) == (answer, strict)


@pytest.mark.parametrize(
    ("response", "body", "strict"),
    [
        ("    return a + b\n", "    return a + b\n", True),
        ("\n    return a + b", "\n    return a + b", True),
        ("return a + b", "    return a + b", False),
        ("c = a + b\n    return c\n", "    c = a + b\n    return c\n", False),
        ("for c in [a]:\n    a = c\nreturn a + b", "    for c in [a]:\n        a = c\n    return a + b", False),
        ("    return a + b\n\nThat is all there is.\n", "    return a + b\n\n", False),
        ("    return a + b\n```\nDone!", "    return a + b\n", False),
        ("```python\n    return a + b\n```", "    return a + b\n", False),
    ],
)
def test_body_continues_the_prompt(response: str, body: str, strict: bool) -> None:
    program = extract_program(STUB, "add", response)
    assert program is not None
    assert (program.answer, program.source, program.strict) == (body, STUB + body, strict)
    assert one(response, prompt=STUB, cases=[((1, 2), 3)]).score == 1.0


@pytest.mark.parametrize(
    "response", ["", "  \n", "I cannot do that.", "```python\nprint('hello')\n```", "add", "def sub(a): pass"]
)
def test_no_program(response: str) -> None:
    assert read(response) is None
    assert one(response, cases=[((1, 2), 3)]) == Verdict(0.0, 0.0, None, "no-answer")


def test_prompt_gives_imports_and_helpers_to_whole_programs() -> None:
    prompt = "from typing import List\n\ndef twice(x):\n    return 2 * x\n\ndef add(a, b) -> List:\n    '''Doc.'''\n"
    response = "```python\ndef add(a: List, b):\n    return twice(a) + b\n```"
    assert one(response, prompt=prompt, cases=[((1, 2), 4)]).strict == 1.0
    assert one(response, prompt="Write a function add.", cases=[((1, 2), 4)]).score == 0.0


def test_time_to_read_is_linear() -> None:
    texts = ["``` " + "a" * 60000 + "`", "```\n" * 16000, "(" * 60000, "def add(:\n" * 6000, "add" + " " * 60000]
    texts.append("def add():\n  return 1\n" + "and so on\n" * 6000)
    start = time.process_time()
    for text in texts:
        extract_program(STUB, "add", text)
        extract_program("", "add", "def add():\n    pass\n" + text)
    assert time.process_time() - start < 3.0
    assert one("#" * (MAX_CHARACTERS + 1) + "\n" + ADD, cases=[((1, 2), 3)]) == Verdict(0.0, 0.0, None, "limit")


@pytest.mark.parametrize(
    ("result", "expected", "score"),
    [
        ("a", 1, 1.0),
        ("1.0", 1, 0.0),
        ("True", 1, 0.0),
        ("[1, (2,)]", [1, (2,)], 1.0),
        ("[1, [2]]", [1, (2,)], 0.0),
        ("{2, 1}", {1, 2}, 1.0),
        ("frozenset({1})", {1}, 0.0),
        ("{'b': 1, 'a': 2}", {"a": 2, "b": 1}, 1.0),
        ("float('nan')", float("nan"), 1.0),
        ("-0.0", 0.0, 1.0),
        ("0.1 + 0.2", 0.3, 0.0),
        ("1j", 1j, 1.0),
        ("b'x'", b"x", 1.0),
        ("None", None, 1.0),
        ("__import__('collections').Counter('aa')", {"a": 2}, 1.0),
        ("[x for x in 'ab']", ["a", "b"], 1.0),
        ("(x for x in 'ab')", ["a", "b"], 0.0),
        ("10 ** 4000", 10**4000, 1.0),
    ],
)
def test_cases_compare_type_by_type(result: str, expected: Any, score: float) -> None:
    assert one(f"def add(a, b): return {result}", cases=[((1, 2), expected)]).score == score


def test_all_cases_must_agree_and_each_has_fresh_arguments() -> None:
    assert one(ADD, cases=[((1, 2), 3), ((1, 2), 4)]).score == 0.0
    mutating = "def add(a, b):\n    a.append(b)\n    return a\n"
    row = [1]
    assert one(mutating, cases=[((row, 2), [1, 2]), ((row, 2), [1, 2])]).score == 1.0
    assert row == [1]


def test_tests_as_lines_as_check_and_with_setup() -> None:
    assert one(ADD, tests=["assert add(1, 2) == 3", "assert add(a=1, b=0) == 1"]).strict == 1.0
    assert one(ADD, tests=["assert add(1, 2) == 3", "assert add(2, 2) == 5"]).reason == "wrong"
    check = "def check(candidate):\n    assert candidate(1, 2) == 3\n    assert add(1, 1) == {}\n"
    assert one(ADD, tests=check.format(2)).score == 1.0
    assert one(ADD, tests=check.format(3)).score == 0.0
    assert one(ADD, tests=["assert add(*row) == 3"], setup="import math\nrow = [1, math.floor(2.5)]").score == 1.0
    assert one("def check(n): return n", entry_point="check", tests=["assert check(1) == 1"]).score == 1.0
    assert one("def sum(a, b): return 6", entry_point="sum", tests=["assert sum(1, 2) == 6"]).score == 1.0


def test_cases_and_tests_must_both_agree() -> None:
    assert one(ADD, cases=[((1, 2), 3)], tests=["assert add(1, 1) == 2"]).score == 1.0
    assert one(ADD, cases=[((1, 2), 3)], tests=["assert add(1, 1) == 3"]).score == 0.0
    assert one(ADD, cases=[((1, 2), 4)], tests=["assert add(1, 1) == 2"]).score == 0.0


def test_tests_may_expect_exceptions() -> None:
    tests = "def check(candidate):\n    try: candidate(0)\n    except ZeroDivisionError: return\n    assert False"
    assert one("def add(a): return 1 / a", tests=tests).score == 1.0
    assert one("def add(a): return 1", tests=tests).score == 0.0
    assert one("class E(ZeroDivisionError): pass\ndef add(a): raise E", tests=tests).score == 1.0
    assert one("def add(a): raise SystemExit", tests=tests).score == 0.0
    swallowing = "def check(candidate):\n    try:\n        candidate(0)\n    except BaseException:\n        pass"
    assert one("import os\ndef add(a): os._exit(0)", tests=swallowing).score == 0.0


def test_tests_may_build_objects_of_the_program() -> None:
    program = """
    class Node:
        def __init__(self, value):
            self.value, self.left, self.right = value, None, None
    def add(node):
        return node.value + (add(node.left) if node.left else 0)
    """
    setup = "root = Node(1)\nroot.left = Node(2)\nroot.left.left = Node(3)"
    tests = ["assert add(root) == 6", "assert root.left.left.value == 3", "assert add(root.left) == 5"]
    assert one(textwrap.dedent(program), tests=tests, setup=setup).score == 1.0
    assert one("class Node:\n    pass\n" + ADD, tests=tests, setup=setup).score == 0.0
    assert one(ADD, tests=tests, setup=setup).reason == "wrong"


def test_the_program_does_not_choose_what_the_tests_compare_with() -> None:
    prompt = "def helper(x):\n    return x + 1\n\n\ndef add(x):\n    '''Doc.'''\n"
    cheat = "def helper(x): return 0\nclass math:\n    pi = 0\nmath_pi = 0\ndef add(x): return 0\n"
    assert one(cheat, prompt=prompt, tests=["assert add(3) == helper(3)"]).score == 0.0
    assert one(cheat, tests=["assert add(3) == math.pi"]).score == 0.0


def test_tests_may_use_numpy() -> None:
    tests = "import numpy as np\ndef check(candidate):\n    assert np.allclose(candidate([0.1] * 3), [0.1] * 3)\n"
    assert one("def add(x): return x", tests=tests).score == 1.0
    assert one("def add(x): return [0.2] * 3", tests=tests).score == 0.0
    assert one("import numpy\ndef add(x): return x", tests=tests).score == 0.0


def test_broken_tests_are_not_the_programs_fault() -> None:
    for tests in ("def check(candidate): return nonsense(", "raise ValueError", "assert add(lambda: 0) == 0"):
        assert one(ADD, tests=tests) == Verdict(None, None, ADD, "infrastructure")


def test_identical_jobs_are_judged_once_and_order_is_kept() -> None:
    sleeper = CodeJob("", "f", "import time\ndef f(x):\n    time.sleep(0.4)\n    return x\n", cases=[((1,), 1)])
    quick = [CodeJob("", "f", f"def f(x): return {i}", cases=[((1,), 1)]) for i in range(4)]
    start = time.monotonic()
    verdicts = judge_code([sleeper, *quick, *[sleeper] * 20], workers=2)
    assert [verdict.score for verdict in verdicts] == [1.0, 0.0, 1.0, 0.0, 0.0, *[1.0] * 20]
    assert time.monotonic() - start < 3.0
    assert judge_code([]) == []


@pytest.mark.slow
def test_cpu_time_decides_and_not_the_clock() -> None:
    sleeper = "import time\ndef add(a, b):\n    time.sleep(1.5)\n    return a + b\n"
    spinner = "import time\ndef add(a, b):\n    while time.process_time() < 0.7: pass\n    return a + b\n"
    jobs = [CodeJob("", "add", source, cases=[((1, 2), 3)]) for source in (sleeper, spinner)]
    assert [verdict.reason for verdict in judge_code(jobs, cpu_seconds=0.5)] == ["correct", "limit"]
    assert judge_code(jobs[1:], cpu_seconds=2.0)[0].reason == "correct"


def test_jobs_that_cannot_be_judged_are_refused() -> None:
    with pytest.raises(UserError, match="neither tests nor cases"):
        one(ADD)
    with pytest.raises(UserError, match="case 1"):
        one(ADD, cases=[((1, 2), 3), ((1, 2), object())])
    with pytest.raises(UserError, match="cpu_seconds"):
        judge_code([], cpu_seconds=0)


def test_a_thousand_programs_do_not_take_long() -> None:
    jobs = [CodeJob("", "add", f"def add(a, b): return a + b + 0 * {i}", cases=[((1, 2), 3)] * 5) for i in range(100)]
    start = time.perf_counter()
    assert [verdict.score for verdict in judge_code(jobs)] == [1.0] * 100
    assert time.perf_counter() - start < 10.0  # measured: 0.4 s on two idle cores


def rows(name: str) -> list[dict[str, Any]]:
    with open(DATA / name, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def failures(jobs: dict[Any, CodeJob]) -> dict[Any, str]:
    verdicts = judge_code(list(jobs.values()))
    return {
        key: verdict.reason
        for key, verdict in zip(jobs, verdicts, strict=True)
        if (verdict.score, verdict.strict) != (1.0, 1.0)
    }


def entry_point_of(row: dict[str, Any]) -> str:
    """The function of a row of MBPP: what its first test calls of what its code defines."""
    defined = {node.name for node in ast.walk(ast.parse(row["code"])) if isinstance(node, ast.FunctionDef)}
    called = (node.func for node in ast.walk(ast.parse(row["test_list"][0])) if isinstance(node, ast.Call))
    return next(name.id for name in called if isinstance(name, ast.Name) and name.id in defined)


@needs_data
@pytest.mark.slow
def test_humaneval_reference_solutions_pass() -> None:
    jobs = {
        row["task_id"]: CodeJob(row["prompt"], row["entry_point"], row["canonical_solution"], tests=row["test"])
        for row in rows("humaneval/HumanEval.jsonl")
    }
    assert len(jobs) == 164
    assert failures(jobs) == {}


@needs_data
@pytest.mark.slow
def test_humaneval_wrong_solutions_fail() -> None:
    jobs = [
        CodeJob(row["prompt"], row["entry_point"], "    return None\n", tests=row["test"])
        for row in rows("humaneval/HumanEval.jsonl")
    ]
    assert {verdict.score for verdict in judge_code(jobs)} == {0.0}


@needs_data
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:invalid escape sequence:DeprecationWarning")
def test_mbpp_reference_solutions_pass() -> None:
    jobs = {
        row["task_id"]: CodeJob(
            "", entry_point_of(row), f"```python\n{row['code']}\n```", row["test_list"], setup=row["test_setup_code"]
        )
        for row in rows("mbpp/mbpp.jsonl")
    }
    assert len(jobs) == 974
    assert failures(jobs) == {}
