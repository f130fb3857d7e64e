"""Programs in a response of several blocks, with fences in their strings, and between other marks than fences."""

import time

import pytest

from smallwit.verify.code import CodeJob, judge_code
from smallwit.verify.sandbox.extract import Program, extract_program

STUB = 'def twice(x):\n    """Two times x."""\n'
CASES = [((3,), 6), ((-1,), -2)]


def scores(response: str, prompt: str = "") -> tuple[float | None, float | None]:
    job = CodeJob(prompt=prompt, entry_point="twice", response=response, cases=CASES)
    verdict = judge_code([job], workers=1)[0]
    return verdict.score, verdict.strict


def read(response: str, prompt: str = "") -> Program:
    program = extract_program(prompt, "twice", response)
    assert program is not None
    return program


def block(code: str, label: str = "python") -> str:
    return f"```{label}\n{code}\n```\n"


def documented(quotes: str, fence: str, label: str = "", indent: str = "    ") -> str:
    lines = [f"{quotes}Two times x.", "", f"{indent}{fence}{label}", f"{indent}twice(3)", f"{indent}{fence}", quotes]
    return "def twice(x):\n    " + "\n".join([lines[0], *lines[1:5], f"    {quotes}"]) + "\n    return 2 * x"


class TestFencesInStrings:
    @pytest.mark.parametrize("quotes", ['"""', "'''", 'r"""'])
    @pytest.mark.parametrize("label", ["", "python", "pycon"])
    @pytest.mark.parametrize("indent", ["    ", ""])
    def test_they_close_no_block(self, quotes: str, label: str, indent: str) -> None:
        closing = quotes.lstrip("r")
        code = documented(closing, "```", label, indent).replace(closing, quotes, 1)
        assert scores(f"So:\n{block(code)}Done.") == (1.0, 1.0)
        assert read(block(code)).source == code + "\n"

    def test_nor_do_they_begin_one_in_bare_code_or_in_a_bare_body(self) -> None:
        code = documented('"""', "```")
        assert scores(code) == (1.0, 1.0)
        body = code.removeprefix("def twice(x):\n")
        assert scores(body, prompt=STUB) == (1.0, 1.0)

    def test_text_behind_the_block_is_not_read(self) -> None:
        code = documented("'''", "```")
        assert read(f"{block(code)}It's '''quoted''':\n{block('twice(3)')}").source == code + "\n"

    def test_a_string_that_is_never_closed_does_not_swallow_the_next_block(self) -> None:
        torn, whole = 'def twice(x):\n    """Two', 'def twice(x):\n    """Two."""\n    return 2 * x'
        assert scores(f"{block(torn)}Better:\n{block(whole)}") == (1.0, 1.0)

    def test_a_comment_opens_no_string(self) -> None:
        code = 'def twice(x):  # no """ here\n    return 2 * x'
        assert scores(f"{block(code)}as in\n{block(chr(34) * 3 + 'doc' + chr(34) * 3)}") == (1.0, 1.0)


class TestSeveralBlocks:
    """What the block lacks and others define runs before it. That is not the declared format: one whole block."""

    HELPED = "def twice(x):\n    return dbl(x)"

    @pytest.mark.parametrize(
        ("other", "code"),
        [
            ("def dbl(v):\n    return v + v", HELPED),
            ("import operator", "def twice(x):\n    return operator.mul(x, 2)"),
            ("import os.path, operator as op", "def twice(x):\n    return op.mul(x, 2)"),
            ("from operator import mul as dbl2", "def twice(x):\n    return dbl2(x, 2)"),
            ("from operator import *", "def twice(x):\n    return mul(x, 2)"),
            ("TWO = 2", "def twice(x):\n    return TWO * x"),
            ("ONE, TWO = 1, 2", "def twice(x):\n    def inner():\n        return TWO * x\n    return inner()"),
            ("TWO: int = 2", "def twice(x):\n    return [TWO * y for y in [x]][0]"),
            ("class Box:\n    def __init__(self, v): self.v = v", "def twice(x):\n    return 2 * Box(x).v"),
            ("import functools", "@functools.cache\ndef twice(x):\n    return 2 * x"),
            ("TWO = 2\ndef dbl(v):\n    return TWO * v", HELPED),
        ],
    )
    def test_imports_and_helpers_of_another_block_are_found(self, other: str, code: str) -> None:
        for label in ("python", ""):
            assert scores(f"First:\n{block(other, label)}Then:\n{block(code)}") == (1.0, 0.0)
        assert scores(f"{block(code)}with\n{block(other)}") == (1.0, 0.0)

    def test_a_helper_is_taken_from_the_last_block_that_defines_it(self) -> None:
        wrong, right = "def dbl(v):\n    return v", "def dbl(v):\n    return v + v"
        assert scores(f"{block(wrong)}No:\n{block(right)}{block(self.HELPED)}") == (1.0, 0.0)

    def test_what_is_not_missing_does_not_run(self) -> None:
        other = "import operator\nassert False\nprint(twice(3))\ntwo = undefined\ndef twice(x):\n    return 0"
        code = "def twice(x):\n    return 2 * x"
        assert scores(f"{block(other)}{block(code)}{block('raise SystemExit')}".replace(other, other)) == (1.0, 1.0)
        used = "def twice(x):\n    return operator.mul(2, x)"
        assert read(f"{block(other)}{block(used)}").preamble == "import operator\n"

    def test_what_the_prompt_defines_is_not_missing(self) -> None:
        prompt = "def dbl(v):\n    return v + v\n\n" + STUB
        assert scores(f"{block('def dbl(v):    return v')}{block(self.HELPED)}", prompt=prompt) == (1.0, 1.0)

    def test_a_name_that_no_block_defines_stays_missing(self) -> None:
        assert scores(f"{block('def other(v):    return v')}{block(self.HELPED)}") == (0.0, 0.0)

    def test_blocks_that_are_no_python_give_nothing(self) -> None:
        assert scores(f"{block('dbl is v + v', 'text')}{block(self.HELPED)}") == (0.0, 0.0)


class TestMarks:
    """`[BEGIN]` and `[DONE]`, as MBPP's paper prompts for programs: read, and not the declared format."""

    CODE = "def twice(x):\n    return 2 * x"

    @pytest.mark.parametrize(
        "response",
        [
            f"[BEGIN]\n{CODE}\n[DONE]",
            f"Sure.\n[BEGIN]\n{CODE}\n[DONE]\nWrite a function.\n[BEGIN]\ndef thrice(x):\n    return 3 * x\n[DONE]",
            f" [BEGIN]\n{CODE}\n[DONE] \n",
            f"{CODE}\n[DONE]\nNext, the other one.",
            f"Here it is:\n{CODE}\n[DONE]\n",
            f"[BEGIN]\n{CODE}\n",
        ],
    )
    def test_programs_between_them_are_read_leniently(self, response: str) -> None:
        assert scores(response) == (1.0, 0.0)

    def test_a_fenced_block_between_them_counts_as_one(self) -> None:
        assert scores(f"[BEGIN]\n{block(self.CODE)}[DONE]") == (1.0, 1.0)

    def test_a_body_may_stand_between_them(self) -> None:
        assert scores("[BEGIN]\n    return 2 * x\n[DONE]", prompt=STUB) == (1.0, 0.0)


def test_time_to_read_is_linear_in_what_strings_and_blocks_hold() -> None:
    opened, names = "```python\n'''\n", "\n".join(f"v{i} = w{i}" for i in range(1000))
    many = " + ".join(f"a{i}" for i in range(1000))
    texts = [
        opened * 4000,
        "```\n\\'''\n" * 6000,
        "```\n'''\n```\n```\n'''\n```\n" * 2500,
        opened + "```\n" * 12000 + "'''\n```",
        block(names) + block("def twice(x):\n    return 2 * x\n" + names.replace("w", "u").replace("v", "w")),
        block("from operator import *\n" * 500) + block(f"def twice(x):\n    return {many}"),
        f"{opened}```\n" + "\\'''" * 15000 + "\n```\n\\",
        "[BEGIN]\n" * 7000 + "[DONE]\n" * 900,
    ]
    start = time.process_time()
    for text in texts:
        extract_program(STUB, "twice", text[:65536])
        extract_program("", "twice", f"{STUB}    return 2 * x\n{text}"[:65536])
    assert time.process_time() - start < 5.0
