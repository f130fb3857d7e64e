"""EvalPlus' rules: what its sanitiser keeps, and what its comparison calls equal."""

import ast
import itertools
import random
import time
from typing import Any

import pytest

from smallwit.errors import UserError
from smallwit.tasks.evalplus import evalplus_program, evalplus_tests

PUBLISHED = """
def assertion(out, exp, atol):
    assert out == exp

def check(candidate):
    for inp, exp in zip([INPUTS], [RESULTS]):
        assertion(candidate(*inp), exp, TOLERANCE)
"""


def passes(out: Any, exp: Any, tolerance: float = 0) -> bool:
    """Whether a function that returns `out` passes where `exp` is expected."""
    source = PUBLISHED.replace("INPUTS", "()").replace("RESULTS", repr(exp)).replace("TOLERANCE", repr(tolerance))
    names: dict[str, Any] = {"nan": float("nan")}
    exec(evalplus_tests(source), names)
    try:
        names["check"](lambda: out)
    except AssertionError:
        return False
    return True


@pytest.mark.parametrize(
    ("out", "exp", "tolerance", "equal"),
    [
        (1, 1, 0, True),
        (1.0, 1, 0, True),  # equal values of different types are equal
        (True, 1, 0, True),
        ([1], (1,), 0, False),
        (0.1 + 0.2, 0.3, 0, True),
        (0.3 + 1e-7, 0.3, 0, True),
        (0.3 + 1e-5, 0.3, 0, False),
        (0.3 + 1e-5, 0.3, 1e-4, True),
        (1e9 + 50, 1e9, 0, True),  # 1e-7 of the expected value
        (3 + 1e-9, 3, 0, False),  # no float is expected
        (3, 3 + 1e-9, 0, False),  # nearly equal, and of another type
        ([0.1 + 0.2, 1.0], [0.3, 1.0], 0, True),
        ([0.1 + 0.2, 1], [0.3, 1], 0, False),  # not all floats
        ([0.3, 1.0], [0.3], 0, False),
        ([0.3 + 1e-9], [0.3, 0.3], 0, False),  # would broadcast
        ((0.3 + 1e-9,), [0.3], 0, False),
        ([], [], 0, True),
        (float("nan"), float("nan"), 0, False),
        (None, 0.5, 0, False),
    ],
)
def test_the_comparison_is_evalplus(out: Any, exp: Any, tolerance: float, equal: bool) -> None:
    assert passes(out, exp, tolerance) is equal


def test_the_root_of_a_polynomial_is_judged_by_the_polynomial() -> None:
    mended = evalplus_tests(
        "import math\ndef _poly(xs, x):\n    return sum(c * math.pow(x, i) for i, c in enumerate(xs))\n"
        "def check(candidate):\n    for inp in [[[-10, -2]]]:\n        assert _poly(*candidate(*inp), inp) <= 0.0001\n"
    )
    names: dict[str, Any] = {}
    exec(mended, names)
    names["check"](lambda xs: -5.0)
    with pytest.raises(AssertionError):
        names["check"](lambda xs: -4.0)
    with pytest.raises(AssertionError):  # far below zero is no root either
        names["check"](lambda xs: 100.0)


def test_tests_of_another_kind_are_refused() -> None:
    with pytest.raises(UserError, match=r"no assertion\(\)"):
        evalplus_tests("def check(candidate): pass")


def test_prose_fences_and_calls_are_dropped() -> None:
    program = "import os\ndef f(x):\n    return g(x)\ndef g(x):\n    return x"
    text = f"Here it is:\n```python\n{program}\n\nprint(f(1))\n```\nDone."
    assert evalplus_program(text, "f") == program


@pytest.mark.parametrize(
    ("source", "kept"),
    [
        ("A = 1\nB = 2\ndef f():\n    return A", "A = 1\ndef f():\n    return A"),
        ("def f():\n    return 1\ndef f():\n    return 2", "def f():\n    return 1"),  # the first of a name
        ("def f(x):\n    print(x)\ndef f(x):\n    return x", "def f(x):\n    return x"),  # one that returns nothing
        ("@cache\ndef f():\n    return 1\nx = 1", "@cache\ndef f():\n    return 1\nx = 1"),  # nothing is left: as it is
        ("class A:\n    pass\ndef f():\n    return A()", "class A:\n    pass\ndef f():\n    return A()"),
        (
            "from os import path\ndef g():\n    return 1\ndef f():\n    return 2",
            "from os import path\ndef f():\n    return 2",
        ),
        (
            "def f(s):\n    return f'{g(s)}'\ndef g(s):\n    return s",
            "def f(s):\n    return f'{g(s)}'\ndef g(s):\n    return s",
        ),
    ],
)
def test_what_the_entry_point_reaches_is_kept(source: str, kept: str) -> None:
    assert evalplus_program(source, "f") == kept


def brute_force(text: str) -> str:
    """The rule as it is stated: all runs of two lines and more, the first of those with most filled lines."""

    def parses(code: str) -> bool:
        try:
            ast.parse(code)
        except SyntaxError:
            return False
        return True

    lines = text.split("\n")
    runs = ((i, j) for i, j in itertools.combinations(range(len(lines)), 2) if parses("\n".join(lines[i : j + 1])))
    first, last = max(
        runs, key=lambda run: (sum(bool(x.strip()) for x in lines[run[0] : run[1] + 1]), -run[0], -run[1])
    )
    return "\n".join(lines[first : last + 1])


def test_the_longest_run_is_found_as_if_all_had_been_tried() -> None:
    rng = random.Random(0)
    parts = [
        "x = 1",
        "if x:",
        "    y = 2",
        "",
        "text and more",
        "(",
        ")",
        "'''",
        "def f():",
        "    return (1,",
        "        2)",
        "else:",
        "\\",
        "try:",
    ]
    compared = 0
    for _ in range(400):
        text = "\n".join(["a = 1", "b = 2", *rng.choices(parts, k=9)])
        expected = brute_force(text)
        # Nothing defines `missing`, so the run comes back with its imports and reached definitions gone: as it is.
        assert evalplus_program(text, "missing") == expected
        compared += expected != "a = 1\nb = 2"
    assert compared > 100


def test_a_long_text_that_is_no_python_takes_no_cubic_time() -> None:
    text = "\n".join(f"This is line {i} of prose, which (of course) does not parse." for i in range(600))
    started = time.process_time()
    assert evalplus_program(text, "f") == text.split("\n", maxsplit=1)[0]
    assert time.process_time() - started < 5
